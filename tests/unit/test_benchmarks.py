"""The benchmark harness measures, compares and reports; how fast anything is stands in no test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import EVENTS, main
from benchmarks.measure import Failure, Measurement, Plan, in_turn, measure
from benchmarks.report import Ratio, figures, ratio
from benchmarks.rows import ROWS, Row, Target
from benchmarks.sides import Driver, SideError

ROOT = Path(__file__).parents[2]
HERE = Path(sys.executable)


def tiny(events: Path = EVENTS) -> Plan:
    """Both sides are this interpreter, so that nothing needs to be installed."""
    return Plan(HERE, HERE, events, rounds=2, cold_rounds=1, loop_s=0.0001)


def row(key: str) -> Row:
    return next(row for row in ROWS if row.key == key)


def test_the_command_measures_a_row_and_writes_every_round_as_json(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    words = ["--quick", "--only", "one-plugin", "--rival", str(HERE), "--json", str(report)]
    done = subprocess.run(
        [str(HERE), "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 no-op plugin" in done.stdout
    document: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    (line,) = document["rows"]
    assert line["key"] == "one-plugin"
    assert len(line["rounds"]["ours"]) == len(line["rounds"]["rival"]) == document["run"]["rounds"]
    assert document["failures"] == []


@pytest.mark.parametrize("key", [row.key for row in ROWS if row.kind == "loop"])
def test_every_loop_runs_all_its_plugins_on_both_sides(key: str) -> None:
    found = measure(row(key), tiny())
    assert isinstance(found, list), found
    (measurement,) = found
    series = (measurement.ours, measurement.rival, measurement.ours_baseline, measurement.rival_baseline)
    assert all(len(each) == 2 and min(each) > 0 for each in series)


def test_an_import_row_has_time_and_memory_beside_pydantic_alone() -> None:
    found = measure(row("import"), tiny())
    assert isinstance(found, list), found
    assert [(each.unit, len(each.ours), len(each.ours_baseline)) for each in found] == [("s", 1, 1), ("MiB", 1, 1)]


def test_the_stream_row_tells_that_both_sides_decided_alike(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    lines = EVENTS.read_text(encoding="utf-8").splitlines()
    injected = [line for line in lines if '"session":"shop-07"' in line]
    events.write_text("\n".join(injected) + "\n", encoding="utf-8")
    found = measure(row("stream"), tiny(events))
    assert isinstance(found, list), found
    assert found[0].notes["ours"] == found[0].notes["rival"]
    assert found[0].notes["ours"]["events"] == len(injected)
    assert found[0].notes["ours"]["denied"] == 3


def test_a_side_that_cannot_measure_is_a_failure_of_the_row_with_its_reason() -> None:
    found = measure(Row("no-such-case", "nothing", "loop"), tiny())
    assert found == Failure(Row("no-such-case", "nothing", "loop"), "KeyError: 'no-such-case'")


def test_a_side_that_ends_early_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "ends"
    program.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    with Driver(program) as driver, pytest.raises(SideError, match="ended before it answered"):
        driver.ask(do="version")


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--only", "fastest"])
    assert caught.value.code == 2
    assert "invalid choice: 'fastest'" in capsys.readouterr().err


def test_the_sides_take_turns_in_being_first() -> None:
    order: list[str] = []
    in_turn(lambda: order.append("a"), lambda: order.append("b"), 3)
    assert "".join(order) == "abbaab"


def test_a_ratio_is_of_neighbouring_rounds_with_quartiles() -> None:
    assert ratio([10.0, 20.0, 30.0, 80.0, 50.0], [10.0] * 5) == Ratio(3.0, 2.0, 5.0)
    assert ratio([1.0], []) is None


def test_a_row_is_met_only_when_all_it_should_reach_holds() -> None:
    wanted = Row("x", "x", "loop", Target(over_baseline=2.0, speedup=12.0), "floor")
    fast = Measurement(wanted, "x", "us", ours=[2.0], rival=[24.0], ours_baseline=[1.0], rival_baseline=[1.0])
    slow = Measurement(wanted, "x", "us", ours=[2.1], rival=[30.0], ours_baseline=[1.0], rival_baseline=[1.0])
    assert (figures(fast).reach, figures(fast).met) == ("≤ 2x floor, ≥ 12x better", True)
    assert figures(slow).met is False


def test_a_row_with_nothing_to_reach_is_neither_met_nor_missed() -> None:
    found = Measurement(row("initialize-1"), "x", "s", ours=[1.0], rival=[2.0])
    assert figures(found).met is None


def test_the_cost_of_the_audit_log_is_measured_in_every_way_that_it_can_be_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.audit", "--seconds", "0", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, cwd=ROOT)
    assert len(done.stdout.splitlines()) == 12
    assert "append, chained" in done.stdout
    assert "append to SQLite, chained, fsync" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_cost_of_watching_is_measured_for_every_observer() -> None:
    command = [sys.executable, "-m", "benchmarks.observers", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, cwd=ROOT)
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [
        "MetricsPlugin",
        "LatencyTrackerPlugin",
        "RequestTracerPlugin,",
        "AuditLogPlugin",
        "FileSinkPlugin",
    ]


def test_the_benchmark_of_the_guards_prints_a_line_for_each() -> None:
    done = subprocess.run(
        [str(HERE), "-m", "benchmarks.guards", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[1:]] == [
        "baseline: str.find",
        "content policy, 1,000 rules of a pattern",
        "content policy, 1,000 rules of a pattern, not ASCII",
        "content policy, 1,000 rules of a word",
        "content policy, 1,000 rules of a word, not ASCII",
        "content policy, built-in rules",
        "content policy, built-in rules, not ASCII",
        "secrets",
        "injection guard",
        "injection guard, not ASCII",
    ]


def test_isolated_plugins_are_measured_and_the_second_start_is_told(tmp_path: Path) -> None:
    words = ["--alone", "--rounds", "1", "--calls", "64", "--json", str(tmp_path / "rounds.json")]
    done = subprocess.run(
        [str(HERE), "-m", "benchmarks.isolated", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^second start from the cache: \d+\.\d\d s, ", done.stdout, re.MULTILINE)
    (measured,) = json.loads((tmp_path / "rounds.json").read_text(encoding="utf-8"))["ours"]
    assert set(measured["together"]) == {"per_s", "p50_ms", "p99_ms"}
