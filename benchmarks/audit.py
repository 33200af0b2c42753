"""What does a line of evidence cost? Appending to the audit log, beside writing the same bytes with nothing around it.

Usage: `python -m benchmarks.audit [--folder DIR] [--seconds S]`. Each row is the median of rounds taken in turns, in
microseconds per event. The folder decides what a disk costs: on a RAM disk, `fsync` is for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal
from cpex.builtins.observability.audit_log import AuditLogPlugin
from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.models import Config

ROUNDS = 5
WAITERS = 64
"""Calls that wait for the disk at the same time, in the row of that name."""
LINE = encode({"v": 1, "type": "decision", "text": "x" * 480})

Row = Callable[[Path, float], Awaitable[float]]


async def bare(folder: Path, seconds: float, *, fsync: bool = False) -> float:
    """The floor: one `write` of the same bytes to an open file."""
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def once() -> None:
        os.write(fd, LINE)
        if fsync:
            os.fsync(fd)

    try:
        return _timed(once, seconds)
    finally:
        os.close(fd)


async def journal(folder: Path, seconds: float, *, chain: bool = True, fsync: bool = False) -> float:
    """One append of the journal, with its lock and its chain."""
    log = Journal(folder / f"journal-{chain}-{fsync}", chain=Chain() if chain else None)
    log.open()

    def once() -> None:
        log.append(LINE)
        if fsync:
            log.sync()

    try:
        return _timed(once, seconds)
    finally:
        log.close()


async def table(folder: Path, seconds: float, *, fsync: bool = False) -> float:
    """One append to the table of an SQLite file."""
    log = TableJournal(folder / f"table-{fsync}.db", chain=Chain())
    log.open()

    def once() -> None:
        log.append(LINE)
        if fsync:
            log.sync()

    try:
        return _timed(once, seconds)
    finally:
        log.close()


async def plugin(folder: Path, seconds: float, *, fsync: str, waiters: int = 1) -> float:
    """One hook call with the audit log in `sequential` mode, less the same call without plugins: attempt and decision.

    The caller waits for the attempt; the decision is written behind its back and its time is in the figure, too.
    """
    entry = PluginConfig(
        name="audit",
        kind=f"{AuditLogPlugin.__module__}.AuditLogPlugin",
        mode="sequential",
        hooks=["tool_pre_invoke"],
        config={"path": str(folder / f"plugin-{fsync}-{waiters}"), "fsync": fsync},
    )
    manager = TenantPluginManager(Config(plugins=[entry], background_limit=100_000))
    await manager.initialize()
    try:
        return await _timed_calls(manager, seconds, waiters) / 2
    finally:
        await manager.shutdown()


def _timed(once: Callable[[], Any], seconds: float) -> float:
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not count:
        once()
        count += 1
    return passed / count * 1e6


async def _timed_calls(manager: TenantPluginManager, seconds: float, waiters: int) -> float:
    count, started = 0, time.perf_counter()
    payload = ToolPreInvokePayload(name="search", args={"q": "x" * 100})

    async def one() -> None:
        nonlocal count
        while time.perf_counter() - started < seconds or not count:
            await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r"))
            count += 1

    await asyncio.gather(*(one() for _ in range(waiters)))
    await manager.executor.drain()
    return (time.perf_counter() - started) / count * 1e6


ROWS: dict[str, Row] = {
    "write (floor)": bare,
    "append, no chain": lambda folder, seconds: journal(folder, seconds, chain=False),
    "append, chained": journal,
    "append to SQLite, chained": table,
    "write + fsync (floor)": lambda folder, seconds: bare(folder, seconds, fsync=True),
    "append, chained, fsync": lambda folder, seconds: journal(folder, seconds, fsync=True),
    "append to SQLite, chained, fsync": lambda folder, seconds: table(folder, seconds, fsync=True),
    "plugin, fsync: never": lambda folder, seconds: plugin(folder, seconds, fsync="never"),
    "plugin, fsync: interval": lambda folder, seconds: plugin(folder, seconds, fsync="interval"),
    "plugin, fsync: always": lambda folder, seconds: plugin(folder, seconds, fsync="always"),
    f"plugin, fsync: always, {WAITERS} calls at once": lambda folder, seconds: plugin(
        folder, seconds, fsync="always", waiters=WAITERS
    ),
}


async def measure(folder: Path, seconds: float) -> dict[str, float]:
    """Microseconds per event of every row: the median of rounds that take turns."""
    rounds: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(ROUNDS):
        for name, row in ROWS.items():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                rounds[name].append(await row(Path(place), seconds))
    return {name: statistics.median(found) for name, found in rounds.items()}


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="where files are written (default: here)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a round of one row")
    options = parser.parse_args(words)
    if not options.folder.is_dir():
        parser.error(f"no such folder: {options.folder}")
    found = asyncio.run(measure(options.folder, options.seconds))
    width = max(map(len, found))
    print(f"{'':{width}}  µs/event  events/s")
    for name, cost in found.items():
        print(f"{name:{width}}  {cost:8.1f}  {1e6 / cost:8,.0f}")
    free = shutil.disk_usage(options.folder).free
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, {free >> 30} GiB free", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
