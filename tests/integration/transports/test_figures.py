"""The benchmark of the transports measures every way; an instant of it tells whether it still runs."""

from __future__ import annotations

import sys
from pathlib import Path

import ports
import pytest

from benchmarks.transports import ways
from benchmarks.transports.__main__ import run
from benchmarks.transports.ways import WAYS


async def test_every_way_is_measured_for_one_caller_and_for_many(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ports that nobody else is given before the server has started.
    monkeypatch.setattr(ways, "free_port", ports.free_port)
    # Both sides are this interpreter, by two of its names, so that nothing needs to be installed.
    itself = str(Path(sys.executable).with_name("python3"))
    assert await run(list(WAYS), 64, 1, itself), capsys.readouterr().err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[way, callers] for way in WAYS for callers in ("1", "32")]
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row[2:-1])
    # One side may have had to wait so long that nothing is left of its share.
    assert all(float(row[-1]) >= 0 for row in rows)
