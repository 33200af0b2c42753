"""Whether an audit log is what was written: reads its files, oldest first, and names the first link that does not hold.

The log may be written to meanwhile. What is judged is what stood in the files when the reading began.

Source: docs/plugins/audit_log.md, "What the chain proves".
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from cpex.builtins.observability._chain import GENESIS, Chain, Head, Link, NotSealed, read_key
from cpex.builtins.observability._journal import aside, names
from cpex.builtins.observability._table import is_table, table_lines
from cpex.builtins.observability._tail import MAX_LINE_BYTES

__all__ = ["BrokenLink", "Verification", "verify_audit_log"]

Code = Literal["audit-changed", "audit-gap", "audit-restart", "audit-head"]


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """The first place at which the chain does not hold."""

    code: Code
    """`audit-changed`: a line is not what was sealed. `audit-gap`: lines before it are missing, or were put in.
    `audit-restart`: a chain begins in the middle of the log. `audit-head`: a head that was given is not in the log."""
    file: str
    line: int
    """From 1, in a table the row; 0 when no single line is at fault."""
    message: str


@dataclass(slots=True)
class Verification:
    """What was found in a log."""

    files: list[str] = field(default_factory=list)
    """What was read, oldest first."""
    records: int = 0
    """Records that hold together, up to the end or to the broken link."""
    first: int = 0
    """Number of the first record; above 1 when older files are not there any more. 0 in an empty log."""
    head: Head = GENESIS
    """The last record that holds."""
    recovered: int = 0
    """Lines that a crash tore, and that the next writer replaced by a record of it."""
    torn_bytes: int = 0
    """Bytes of a line that a crash tore and that nobody has written after."""
    broken: BrokenLink | None = None

    @property
    def holds(self) -> bool:
        """Whether no link is broken."""
        return self.broken is None


def verify_audit_log(
    path: Path, *, key_file: Path | None = None, alone: bool = False, expect: Mapping[int, str] | None = None
) -> Verification:
    """Read a log and check every link.

    Args:
        path: The file that is written to; those that were set aside (`<path>.1`, …) are read before it.
        key_file: What the log was written with.
        alone: Read this one file only.
        expect: Heads that are known to have been written, as `{number: hash}`: without them, nobody can tell that
            lines were taken from the end.

    Raises:
        OSError: A file cannot be read.
        ValueError: The key is none.
    """
    chain = Chain(read_key(key_file) if key_file is not None else None)
    found = Verification()
    missing = dict(expect or {})
    with ExitStack() as stack:
        for name, lines in _all_lines(path, alone, stack):
            found.files.append(name)
            found.broken = _verify_lines(name, lines, chain, found, missing)
            if found.broken is not None:
                return found
    if missing:
        found.broken = _missing_head(found, missing)
    return found


def _all_lines(path: Path, alone: bool, stack: ExitStack) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The log's files, oldest first, with their lines. A table is one file, and never set aside."""
    if path.is_file() and is_table(path):
        yield str(path), table_lines(path)
        return
    for name, file, size in _open_all(path, alone, stack):
        yield name, _lines(file, size)


def _open_all(path: Path, alone: bool, stack: ExitStack) -> list[tuple[str, BinaryIO, int]]:
    """The log's files, oldest first, each open and with the size that it had when nobody was writing."""
    newest = _locked(path, stack)
    if newest is None:
        return [_sized(name, stack) for name in _set_aside(path)]
    try:
        files = [_sized(name, stack) for name in ([] if alone else _set_aside(path))]
        return [*files, (str(path), newest, os.fstat(newest.fileno()).st_size)]
    finally:
        fcntl.flock(newest, fcntl.LOCK_UN)


def _locked(path: Path, stack: ExitStack) -> BinaryIO | None:
    """The file that is written to, open and locked, so that it is not set aside before its place in the order is known.

    The lock is shared: other readers may look at the same time, and a writer waits for a few system calls.

    Returns:
        `None` when a process died after it had set the file aside and before it made the next one.
    """
    while True:
        try:
            file = stack.enter_context(path.open("rb"))
        except FileNotFoundError:
            # A living process that is in between the two still holds the lock of the file that it has set aside.
            if not (last := aside(path, 1)).exists():
                raise
            with last.open("rb") as before:
                fcntl.flock(before, fcntl.LOCK_SH)
            if path.exists():
                continue
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if names(path, file.fileno()):
            return file
        fcntl.flock(file, fcntl.LOCK_UN)


def _sized(name: Path, stack: ExitStack) -> tuple[str, BinaryIO, int]:
    file = stack.enter_context(name.open("rb"))
    return str(name), file, os.fstat(file.fileno()).st_size


def _set_aside(path: Path) -> list[Path]:
    """Files that were set aside, oldest first. A crash in the middle of a rotation may leave a number out."""
    ends = (each.name.removeprefix(f"{path.name}.") for each in path.parent.iterdir() if each.name != path.name)
    numbers = {int(end) for end in ends if end.isascii() and end.isdigit() and end == str(int(end)) and end != "0"}
    return [each for number in sorted(numbers, reverse=True) if (each := aside(path, number)).is_file()]


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The lines of a file up to a size, the last one perhaps without its end."""
    left = size
    while left > 0 and (line := file.readline(min(left, MAX_LINE_BYTES * 2))):
        left -= len(line)
        yield line


def _verify_lines(
    name: str, lines: Iterator[bytes], chain: Chain, found: Verification, missing: dict[int, str]
) -> BrokenLink | None:
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            # Also in a file that was set aside: a process that died in it may have been replaced by one in the next.
            found.torn_bytes += len(line)
            return None
        try:
            link = chain.read(line[:-1])
        except NotSealed as error:
            return BrokenLink("audit-changed", name, number, str(error))
        fault = _fault(link, found, missing)
        if fault is not None:
            return BrokenLink(fault[0], name, number, fault[1])
        found.first = found.first or link.head.seq
        found.records += 1
        found.recovered += b',"type":"recovered",' in line[:120]
        found.head = link.head
    return None


def _fault(link: Link, found: Verification, missing: dict[int, str]) -> tuple[Code, str] | None:
    seq, before = link.head.seq, found.head
    if seq == 1 and link.prev != GENESIS.hash:
        return "audit-gap", "the first record of a chain says that something stood before it"
    if found.records:
        if seq == 1:
            return "audit-restart", f"a new chain begins after record {before.seq}"
        if seq != before.seq + 1:
            return "audit-gap", f"record {seq} follows record {before.seq}"
        if link.prev != before.hash:
            return "audit-gap", f"record {seq} was written after another record {before.seq} than the one before it"
    wanted = missing.pop(seq, link.head.hash)
    if wanted != link.head.hash:
        return "audit-head", f"record {seq} is another one than the head that was noted"
    return None


def _missing_head(found: Verification, missing: Mapping[int, str]) -> BrokenLink:
    """What to say of a head that was noted and that the log does not reach."""
    number = min(missing)
    if number > found.head.seq:
        said = f"the log ends with record {found.head.seq}, but record {number} was written: lines are missing"
    else:
        said = f"record {number} was written, but the files begin with record {found.first}"
    return BrokenLink("audit-head", found.files[-1] if number > found.head.seq else found.files[0], 0, said)
