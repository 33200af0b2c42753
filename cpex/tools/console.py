"""Where commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Literal

import typer

from cpex.tools.exit_codes import ExitCode

if TYPE_CHECKING:
    # Costs more than the rest of the command line; those who have a fault have loaded it.
    from pydantic import ValidationError
    from rich.console import Console
    from rich.text import Text

    from cpex.framework.errors import Fault

__all__ = [
    "STANDARD",
    "clean_end",
    "complain",
    "console_for",
    "environment_faults",
    "fault_text",
    "plain",
    "plugins_print_to_stderr",
    "print_json",
]

STANDARD = "-"
"""In place of a file name: standard input or output."""
_WIDE = 200
"""Columns where the output is no terminal, so that no row of a table is broken."""


def console_for(file: IO[str]) -> Console:
    """A console that colours on terminals only and never cuts what goes to a file or a pipe."""
    from rich.console import Console

    console = Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def plain(value: object, limit: int = 120) -> Text:
    """Text of a plugin, an event or a configuration, made harmless: one line, no escape sequences, cut when long."""
    from rich.text import Text

    text = str(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return Text("".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut))


def print_json(document: Any, file: IO[str]) -> None:
    """Print one JSON document, indented."""
    import json

    file.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def fault_text(fault: Fault, severity: Literal["error", "warning"] = "error") -> str:
    """A fault as it is printed: what, where, and how to mend it."""
    return severity + fault.render().removeprefix("error")


def complain(fault: Fault, severity: Literal["error", "warning"] = "error") -> None:
    """Print a fault on standard error."""
    sys.stderr.write(fault_text(fault, severity) + "\n")


def environment_faults(error: ValidationError) -> list[Fault]:
    """What is wrong with variables of the environment; nothing when the error is about something else.

    Values are not shown: a variable may hold a secret.
    """
    from cpex.framework.errors import Fault

    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Settings name their fields as the variables are called; no other model of ours does.
    if not all(each["loc"] and str(each["loc"][0]).isupper() for each in found):
        return []
    help = "mend or unset it, in the environment or in `.env`"
    return [
        Fault(code="environment", message=f"`{each['loc'][0]}`: {_lowered(each['msg'])}", help=help) for each in found
    ]


def _lowered(text: str) -> str:
    told = text.removeprefix("Value error, ").replace("Input should", "must").partition(", unable to")[0]
    return told[:1].lower() + told[1:]


@contextlib.contextmanager
def plugins_print_to_stderr() -> Iterator[IO[str]]:
    """Send what plugins print to standard error, so that standard output holds results only.

    Yields:
        The real standard output.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield stdout


@contextlib.contextmanager
def clean_end() -> Iterator[None]:
    """End quietly when the reader of the output has gone, or on Ctrl-C."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more on its way out; it must not meet the broken pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.BROKEN_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
