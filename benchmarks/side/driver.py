"""One side of the comparison: measures what it is told, in the interpreter it was started with.

Reads one JSON object a line and answers with one. This folder comes first on the path and holds no package of the
framework's name, so the framework is the one installed in the interpreter's own environment.

- `{"do": "version"}` → `{"cpex": …, "python": …}`
- `{"do": "prepare", "case": row}` → `{}`
- `{"do": "loop", "what": "subject" | "baseline", "calls": n}` → `{"ns": elapsed}`
- `{"do": "stream", "events": path, "builtin": bool}` → see `stream.run_stream`

A failure is answered with `{"error": text}`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import loops
import stream


class Driver:
    """Keeps the case at hand from one command to the next."""

    def __init__(self) -> None:
        """Start with nothing prepared."""
        self._case: loops.Case | None = None
        self._events: list[dict[str, Any]] = []

    async def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what one command says."""
        do = command["do"]
        if do == "version":
            return {"cpex": version("cpex"), "pydantic": version("pydantic"), "python": platform.python_version()}
        if do == "prepare":
            self._case = await loops.CASES[command["case"]]()
            _settle()
            return {}
        if do == "loop":
            return {"ns": await self._loop(command["what"], command["calls"])}
        if not self._events:
            self._events = stream.read_events(Path(command["events"]))
            _settle()
        gc.collect()
        return dict(await stream.run_stream(self._events, builtin=command["builtin"]))

    async def _loop(self, what: str, calls: int) -> int:
        if self._case is None:
            raise RuntimeError("prepare a case before timing it")
        gc.collect()
        return await (self._case.subject if what == "subject" else self._case.baseline)(calls)


def _settle() -> None:
    """Set aside what lives as long as the process, so that collections during a loop are about the loop's objects."""
    gc.collect()
    gc.freeze()


async def main() -> None:
    """Answer commands until the input ends."""
    # Answers keep the original output; whatever a plugin or a library prints goes to the errors.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    # Logging is a host's choice, and the releases differ in how much they log.
    logging.disable(logging.CRITICAL)
    driver = Driver()
    # Reading blocks the loop on purpose: between two commands nothing is under way.
    for line in sys.stdin:
        try:
            answer = await driver.answer(json.loads(line))
        except Exception as error:  # the other end of the pipe must hear of any failure
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
