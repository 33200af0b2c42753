"""The worker: a process that runs one plugin for a host, told what to do by lines on its standard input.

Started as a plain file, `python …/cpex/framework/isolated/worker.py`, with nothing but this package importable. Until a
host asks for a plugin only the standard library is loaded, so that the handshake costs an interpreter's start and no
more; other names of this module load when they are asked for.

Source: docs/isolated.md, "The lines".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The folder of this file is no place to import from: its modules would stand in the way of a plugin's own. Neither
    # are folders in front of the installed packages; a host names those of the plugin with the plugin.
    _OUT = {str(Path(__file__).resolve().parent), *os.environ.pop("PYTHONPATH", "").split(os.pathsep)}
    sys.path[:] = [entry for entry in sys.path if entry not in _OUT and os.path.realpath(entry) not in _OUT]

import cpex
from cpex.framework.isolated.channel import Channel, read_line
from cpex.framework.isolated.framing import DEFAULT_MAX_BYTES, LineSplitter, LineTooLong, frame, id_at_start, is_typed

if TYPE_CHECKING:
    from cpex.framework.isolated.credentials import (
        CREDENTIAL_FIELD,
        CREDENTIAL_HOOKS,
        MIN_SCRUBBABLE_TOKEN_LENGTH,
        REDACTED_HEADER_VALUE,
        SENSITIVE_HEADERS,
        CredentialError,
        reconstruct_credential_payload,
        scrubbing_log_factory,
    )
    from cpex.framework.isolated.serving import TaskProcessor, execute_hook_scrubbed, process_task
    from cpex.framework.isolated.slots import (
        EXTENSIONS_FIELD,
        MODIFIED_EXTENSIONS_FIELD,
        reconstruct_extensions,
        sanitize_extensions_http,
    )

__all__ = [
    "CREDENTIAL_FIELD",
    "CREDENTIAL_HOOKS",
    "EXTENSIONS_FIELD",
    "MIN_SCRUBBABLE_TOKEN_LENGTH",
    "MODIFIED_EXTENSIONS_FIELD",
    "REDACTED_HEADER_VALUE",
    "SENSITIVE_HEADERS",
    "WORKER_FEATURES",
    "WORKER_PROTOCOL_VERSION",
    "CredentialError",
    "TaskProcessor",
    "execute_hook_scrubbed",
    "get_environment_info",
    "main",
    "process_task",
    "read_task_line",
    "reconstruct_credential_payload",
    "reconstruct_extensions",
    "sanitize_extensions_http",
    "scrubbing_log_factory",
]

WORKER_PROTOCOL_VERSION = 1
WORKER_FEATURES = ("credential", "extensions", "modified_extensions", "context", "load", "cancel", "typed")
"""What a host may rely on. The first three are those of release 0.1; the others are only used by a host that asks."""
FIRST_LINE_MAX_BYTES = 100_000_000
"""Bytes of a line before the plugin's own limit is known."""
LAST_MOMENT_S = 4.0
"""Seconds after which the process ends, whatever plugin code is still doing."""

_HOMES = {
    "serving": ("TaskProcessor", "execute_hook_scrubbed", "process_task"),
    "slots": (
        "EXTENSIONS_FIELD",
        "MODIFIED_EXTENSIONS_FIELD",
        "reconstruct_extensions",
        "sanitize_extensions_http",
    ),
    "credentials": (
        "CREDENTIAL_FIELD",
        "CREDENTIAL_HOOKS",
        "MIN_SCRUBBABLE_TOKEN_LENGTH",
        "REDACTED_HEADER_VALUE",
        "SENSITIVE_HEADERS",
        "CredentialError",
        "reconstruct_credential_payload",
        "scrubbing_log_factory",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"cpex.framework.isolated.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_task_line(max_content_size: int | None) -> tuple[str, bool]:
    """Read a line from standard input, without its end.

    Args:
        max_content_size: Bytes; `None` for no limit.

    Returns:
        The text, and whether the line was over the limit; then the text is its beginning. An empty text means the end
        of the input; an empty line is a line feed.
    """
    line, too_long = read_line(sys.stdin.buffer, max_content_size)
    return line.decode("utf-8", "replace"), too_long


def get_environment_info() -> dict[str, Any]:
    """What `info` tells about this environment."""
    from cpex.framework.isolated.serving import describe_environment

    info: dict[str, Any] = describe_environment()["environment"]
    return info


class _Worker(asyncio.Protocol):
    """Reads lines, sees to it that each is answered, and ends when the host wants it or is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._lines = LineSplitter(FIRST_LINE_MAX_BYTES)
        # Tasks of hosts that do not ask for more run one after another, in the order of their lines; then the end.
        self._in_turn: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._processor: TaskProcessor | None = None

    async def run(self) -> None:
        """Work until told to stop, or until the host has closed the input and every task is answered."""
        threading.Thread(target=self._watch_host, name="host-watch", daemon=True).start()
        source = None
        try:
            source, _ = await self._loop.connect_read_pipe(lambda: self, self._channel.source)
        # A file, or a platform whose pipes cannot be waited for.
        except (ValueError, NotImplementedError, OSError):
            threading.Thread(target=self._read, name="lines-from-host", daemon=True).start()
        turns = asyncio.create_task(self._take_turns())
        await self._done.wait()
        _end_at_the_latest_after(LAST_MOMENT_S)
        tasks = [turns, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._processor is not None:
            await self._processor.shutdown()
        if source is not None:
            source.close()

    # In threads.

    def _watch_host(self) -> None:
        """Notice that the host is gone, even while plugin code keeps the event loop to itself."""
        if self._channel.wait_until_nobody_reads():
            _end_at_the_latest_after(LAST_MOMENT_S)

    def _read(self) -> None:
        while data := self._channel.source.read1(65536):
            self._call(self.data_received, data)
        self._call(self.connection_lost, None)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        # The loop has ended: so does the process.
        except RuntimeError:
            pass

    # In the event loop.

    def data_received(self, data: bytes) -> None:
        """The host wrote something."""
        if self._processor is not None and self._processor.plugin_config is not None:
            self._lines.max_bytes = self._processor.max_bytes
        for line in self._lines.feed(data):
            if isinstance(line, LineTooLong):
                refusal = _failure("Task line exceeds max content size")
                self._send({"request_id": id_at_start(line.start) or "unknown", **refusal})
            else:
                self._accept(line)

    def connection_lost(self, exc: Exception | None) -> None:
        """The host will write nothing more; what it has asked for is still answered."""
        self._in_turn.put_nowait(None)

    def _accept(self, line: bytes) -> None:
        try:
            task = _parse(line)
        except (ValueError, RecursionError) as error:
            self._send({"request_id": id_at_start(line) or "unknown", **_failure(f"Invalid JSON input: {error}")})
            return
        if not isinstance(task, dict):
            self._send({"request_id": "unknown", **_failure("a task must be a JSON object")})
        elif task.get("task_type") == "cancel":
            self._cancel(task)
        elif task.get("side_by_side") is True:
            self._begin(task)
        else:
            self._in_turn.put_nowait(task)

    def _cancel(self, task: dict[str, Any]) -> None:
        running = self._running.get(str(task.get("target")))
        if running is not None:
            running.cancel()
        # That this is answered at all tells the host that plugin code does not hold the event loop.
        self._send({"request_id": task.get("request_id", "unknown"), "status": "success", "message": "cancelled"})

    def _begin(self, task: dict[str, Any]) -> None:
        request_id = str(task.get("request_id"))
        running = self._running[request_id] = self._loop.create_task(self._carry_out(task))
        running.add_done_callback(lambda _: self._running.pop(request_id, None))

    async def _take_turns(self) -> None:
        while (task := await self._in_turn.get()) is not None:
            await self._carry_out(task)
        if self._running:
            await asyncio.wait(self._running.values())
        self._done.set()

    async def _carry_out(self, task: dict[str, Any]) -> None:
        kind, request_id = task.get("task_type"), task.get("request_id", "unknown")
        if kind == "capabilities":
            self._send({"request_id": request_id, **_capabilities()})
            return
        if kind == "shutdown":
            self._send({"request_id": request_id, "status": "success", "message": "Shutting down"})
            self._done.set()
            return
        from cpex.framework.isolated.serving import TaskProcessor, process_task

        if self._processor is None:
            self._processor = TaskProcessor()
        answer = await process_task(task, self._processor)
        self._send(answer, typed=task.get("typed") is True)

    def _send(self, answer: dict[str, Any], *, typed: bool = False) -> None:
        try:
            line = frame(answer, typed=typed)
        except (TypeError, ValueError) as error:
            line = frame({"request_id": answer["request_id"], **_failure(f"Unexpected error: {error!r}")})
        limit = self._processor.max_bytes if self._processor is not None else DEFAULT_MAX_BYTES
        if len(line) - 1 > limit:
            text = f"Serialized response exceeds max content size: {len(line) - 1} bytes, at most {limit}"
            line = frame({"request_id": answer["request_id"], **_failure(text)})
        try:
            self._channel.send_line(line)
        # The host is gone.
        except OSError:
            self._done.set()


def _parse(line: bytes) -> Any:
    if not is_typed(line):
        return json.loads(line)
    from cpex.framework.external import wire

    return wire.loads(line)


def _failure(message: str) -> dict[str, Any]:
    return {"status": "error", "message": message}


def _capabilities() -> dict[str, Any]:
    return {
        "status": "success",
        "protocol_version": WORKER_PROTOCOL_VERSION,
        "features": list(WORKER_FEATURES),
        "cpex_version": _installed_version(),
    }


def _installed_version() -> str | None:
    # Beside the package, for whoever has installed it; the tools that find it elsewhere take longer than all the rest.
    beside = Path(cpex.__file__).parents[1].glob("cpex-*.dist-info")
    for folder in beside:
        return folder.name.removeprefix("cpex-").removesuffix(".dist-info")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cpex")
    except PackageNotFoundError:
        return None


def _end_at_the_latest_after(seconds: float) -> None:
    """End the process even if plugin code keeps the event loop, or threads that nobody waits for, to itself."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


async def main() -> None:
    """Take over standard input and output, and work until told to stop."""
    await _Worker(Channel.take_over()).run()


if __name__ == "__main__":
    asyncio.run(main())
