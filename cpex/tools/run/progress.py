"""The progress bar of a run: on a terminal only, and on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import IO

from cpex.tools.console import console_for
from cpex.tools.run.tally import Tally

__all__ = ["progress"]

_EVERY = 32
"""Events between two looks at the clock."""


@contextlib.contextmanager
def progress(tally: Tally, total: int | None, stderr: IO[str]) -> Iterator[Callable[[int], None]]:
    """Show how far a run is.

    Args:
        total: Bytes of the stream, `None` when nobody knows.

    Yields:
        A function to be called after each event with the bytes that are done.
    """
    console = console_for(stderr)
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[events]:,} events"),
        BarColumn(),
        TextColumn("{task.fields[denied]:,} denied"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=total, events=0, denied=0)

        def advance(done: int) -> None:
            if (tally.events + tally.bad_lines) % _EVERY == 0:
                bar.update(task, completed=done, events=tally.events, denied=tally.denied)

        yield advance
