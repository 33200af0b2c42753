"""The commands `cpex audit …`: whether evidence holds."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpex.tools.console import clean_end, complain, print_json
from cpex.tools.exit_codes import ExitCode

if TYPE_CHECKING:
    # Imported when a log is read, so that help and version cost little.
    from cpex.builtins.observability.audit_verify import Verification

__all__ = ["audit", "document", "text"]

audit = typer.Typer(name="audit", help="Look into audit logs.", no_args_is_help=True)

_HEAD = re.compile(r"(?P<seq>[1-9][0-9]{0,17}):(?P<hash>[0-9a-f]{64})")


@audit.callback()
def _group() -> None:
    pass


@audit.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The log; files that were set aside are read with it.")],
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="Key that the log was written with.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", metavar="NUMBER:HASH", help="A head that was noted earlier; repeatable."),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Read this file only, not those that were set aside.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON document.")] = False,
) -> None:
    """Check that an audit log is what was written, and name the first link that is broken.

    Prints the head of the log, NUMBER:HASH. Whoever notes it elsewhere
    can later give it to `--expect` and see whether lines were taken from
    the end, or the whole log was written anew.

    Exits with 0 when the log holds, 1 when it cannot be read, 6 when a
    link is broken.

    Example: cpex audit verify cpex-audit.jsonl
    """
    heads = dict(_head(each) for each in expect or ())
    from cpex.builtins.observability.audit_verify import verify_audit_log
    from cpex.framework.errors import Fault

    with clean_end():
        try:
            found = verify_audit_log(file, key_file=key_file, alone=alone, expect=heads)
        except OSError as error:
            what = "key" if key_file is not None and error.filename == str(key_file) else "audit log"
            complain(Fault("audit-unreadable", f"{what} `{error.filename or file}` cannot be read: {error.strerror}"))
            raise typer.Exit(ExitCode.FAILURE) from None
        except ValueError as error:
            complain(Fault("audit-key", str(error)))
            raise typer.Exit(ExitCode.FAILURE) from None
        if as_json:
            print_json(document(found), sys.stdout)
        else:
            sys.stdout.write(text(found))
        raise typer.Exit(ExitCode.OK if found.holds else ExitCode.BROKEN)


def _head(told: str) -> tuple[int, str]:
    found = _HEAD.fullmatch(told)
    if found is None:
        raise typer.BadParameter(f"`{told[:100]}` is no head; expected NUMBER:HASH as this command prints it")
    return int(found["seq"]), found["hash"]


def text(found: Verification) -> str:
    """The findings as they are printed."""
    lines: list[str] = []
    if found.broken is not None:
        place = f"{found.broken.file}:{found.broken.line}" if found.broken.line else found.broken.file
        lines.append(f"broken: {place}: {found.broken.message} [{found.broken.code}]")
        lines.append(f"  {_number(found.records, 'record')} before it hold together")
    else:
        lines.append(f"ok: {_number(found.records, 'record')} in {_number(len(found.files), 'file')} hold together")
    lines.append(f"head: {found.head}")
    if found.first > 1:
        lines.append(f"note: the files begin with record {found.first:,}; what came before cannot be checked")
    if found.recovered:
        lines.append(f"note: {_number(found.recovered, 'line')} that a crash tore, each replaced by a record of it")
    if found.torn_bytes:
        lines.append(f"note: a crash tore the last line ({found.torn_bytes:,} bytes); the next writer mends it")
    return "\n".join(lines) + "\n"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def document(found: Verification) -> dict[str, Any]:
    """The findings as JSON values."""
    broken = found.broken
    return {
        "v": 1,
        "ok": found.holds,
        "files": found.files,
        "records": found.records,
        "first": found.first,
        "head": str(found.head),
        "recovered": found.recovered,
        "torn_bytes": found.torn_bytes,
        "broken": None
        if broken is None
        else {"code": broken.code, "file": broken.file, "line": broken.line, "message": broken.message},
    }
