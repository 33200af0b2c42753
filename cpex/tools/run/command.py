"""The command `cpex run`: its options, and what they may not ask for together.

The engine is imported when a run begins, so that help and version cost little.
"""

from __future__ import annotations

import os
import stat
from typing import Annotated

import typer

from cpex.tools.console import STANDARD, clean_end

__all__ = ["run"]


def run(
    events: Annotated[str, typer.Argument(metavar="EVENTS", help="JSON Lines file of events; `-` is standard input.")],
    config: Annotated[str, typer.Option("--config", "-c", metavar="FILE", help="Configuration of the pipeline.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Write decisions; `-` is standard output.")
    ] = None,
    fail_on_deny: Annotated[bool, typer.Option("--fail-on-deny", help="Exit with 5 when anything was denied.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document.")] = False,
    show_removed: Annotated[
        bool, typer.Option("--show-removed", help="Write removed and replaced values into decisions, secrets included.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every log message, with tracebacks.")] = False,
) -> None:
    """Run a stream of events through a pipeline, and tell what it decided.

    Events are judged one after another, at the time they carry. A line
    that is no event gets a message and does not stop the rest.

    Exits with 0 when all went well, 1 when a line was bad or a call
    failed, 5 when something was denied and `--fail-on-deny` is given.

    Example: cpex run events.jsonl --config plugins.yaml --out decisions.jsonl
    """
    _refuse_clashes(events, out, as_json)
    from cpex.tools.run.execution import Run

    with clean_end():
        raise typer.Exit(Run(events, config, out, fail_on_deny, as_json, show_removed, verbose).execute())


def _refuse_clashes(events: str, out: str | None, as_json: bool) -> None:
    if as_json and out == STANDARD:
        raise typer.BadParameter("decisions and summary cannot both go to standard output; give `--out` a file")
    if out not in (None, STANDARD) and _is_same_file(events, out):
        raise typer.BadParameter(f"`--out {out}` is the file of events and would be overwritten; give another")


def _is_same_file(events: str, out: str) -> bool:
    try:
        # Devices may well be both.
        return stat.S_ISREG(os.stat(out).st_mode) and os.path.samefile(events, out)
    except OSError:
        return False
