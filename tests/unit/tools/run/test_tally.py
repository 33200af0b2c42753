from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cpex.framework.models.mode import ControlExecutionStatus, PluginMode
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel, PluginViolation
from cpex.tools.console import console_for
from cpex.tools.events import Decision, parse_event
from cpex.tools.run.report import Summary, print_summary
from cpex.tools.run.tally import MAX_GROUPS, Durations, Tally


def record(plugin: str, **fields: Any) -> ControlExecutionRecord:
    values: dict[str, Any] = {
        "plugin_id": "0" * 32,
        "plugin_name": plugin,
        "plugin_kind": "k",
        "hook_name": "tool_pre_invoke",
        "mode": PluginMode.SEQUENTIAL,
        "status": ControlExecutionStatus.COMPLETED,
        "requested_allow": True,
        "duration_ns": 1000,
    }
    return ControlExecutionRecord(**{**values, **fields})


def decision(line: int, *records: ControlExecutionRecord, name: str = "search", **fields: Any) -> Decision:
    data = json.dumps({"hook": "tool_pre_invoke", "payload": {"name": name}}).encode()
    allowed = "violation" not in fields and "error" not in fields
    return Decision(parse_event(line, data, "e"), allowed, 1, executions=records, **fields)


def denial(line: int, reason: str = "no", **fields: Any) -> Decision:
    violation = PluginViolation(reason=reason, description="d", code="NO")
    return decision(line, record("guard", requested_allow=False, effective_allow=False), violation=violation, **fields)


def would_be_denial(line: int) -> Decision:
    fields = {"requested_allow": False, "effective_allow": True, "reason": "no", "error_code": "NO"}
    return decision(line, record("trial", mode=PluginMode.AUDIT, **fields))


def tally_of(*decisions: Decision) -> Tally:
    tally = Tally()
    for each in decisions:
        tally.count(each)
    return tally


@given(st.lists(st.integers(1, 10**12), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_a_quantile_is_off_by_little(values: list[int], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    exact = sorted(values)[max(1, -int(-share * len(values) // 1)) - 1]
    assert durations.quantile(share) == pytest.approx(exact, rel=0.023)


def test_nothing_has_no_quantile() -> None:
    assert Durations().quantile(0.5) is None


def test_turns_are_counted_by_what_came_of_them() -> None:
    tally = tally_of(
        decision(1, record("p", requested_allow=False, effective_allow=True)),
        decision(2, record("p", payload_modified=True), changes=[{"op": "remove", "path": "/a"}]),
        decision(3, record("p", extensions_modified=True)),
        decision(4, record("p", status=ControlExecutionStatus.TIMEOUT, requested_allow=None)),
        decision(5, record("p", status=ControlExecutionStatus.DISABLED, requested_allow=None)),
        denial(6),
    )
    p, guard = tally.plugins["p", "tool_pre_invoke"], tally.plugins["guard", "tool_pre_invoke"]
    assert (p.calls, p.denials, p.would_be_denials, p.changes, p.errors) == (4, 0, 1, 2, 1)
    assert (guard.calls, guard.denials, guard.would_be_denials) == (1, 1, 0)
    assert (tally.events, tally.allowed, tally.denied, tally.failed, tally.changed) == (6, 5, 1, 0, 1)


def test_denials_are_grouped_by_reason_and_say_what_was_denied() -> None:
    tally = tally_of(*(denial(line, name=f"tool{line}") for line in range(1, 6)), denial(9, "other reason"))
    group = tally.denials["guard", "NO", "no"]
    assert (group.count, group.first_event, list(group.subjects)) == (5, 1, ["tool1", "tool2", "tool3"])
    assert tally.denials["guard", "NO", "other reason"].count == 1


def test_denials_that_may_not_be_are_grouped_by_reason_apart_from_those_that_were() -> None:
    tally = tally_of(*(would_be_denial(line) for line in (2, 5)), denial(7))
    group = tally.would_be_denials["trial", "NO", "no"]
    assert (group.count, group.first_event, list(group.subjects)) == (2, 2, ["search"])
    assert list(tally.denials) == [("guard", "NO", "no")]
    assert (tally.allowed, tally.denied) == (2, 1)


def test_memory_does_not_grow_with_the_number_of_reasons() -> None:
    tally = tally_of(*(denial(line, f"reason {line}") for line in range(1, MAX_GROUPS + 100)))
    assert len(tally.denials) == MAX_GROUPS + 1
    assert sum(group.count for group in tally.denials.values()) == MAX_GROUPS + 99


def test_findings_are_told_apart_by_whether_the_payload_was_changed() -> None:
    report = {"p": {"pii": {"card": 2, "bad": "x", "flag": True}, "used": 5}, "q": "text"}
    tally = tally_of(
        decision(1, record("p"), metadata=report), decision(2, record("p", payload_modified=True), metadata=report)
    )
    assert dict(tally.findings) == {("p", "pii", "card"): 2}
    assert dict(tally.rewritten) == {("p", "pii", "card"): 2}


def summary(tally: Tally, **fields: Any) -> Summary:
    return Summary(
        **{"file": "e.jsonl", "config": "c", "tally": tally, "duration_s": 2.0, "interrupted": False, **fields}
    )


def printed(of: Summary, width: int | None = None) -> str:
    file = io.StringIO()
    console = (
        console_for(file) if width is None else Console(file=file, width=width, force_terminal=True, no_color=True)
    )
    print_summary(of, console)
    return file.getvalue()


FAILED = decision(3, record("guard"), error=PluginErrorModel(message="boom\x1b[31m", plugin_name="guard"))


def test_the_summary_tells_who_was_denied_what_was_found_and_how_long_it_took() -> None:
    tally = tally_of(
        denial(1), decision(2, record("pii", payload_modified=True), metadata={"pii": {"pii": {"card": 2}}}), FAILED
    )
    tally.bad_lines = 1
    of = summary(tally, disabled=("d",), missing=("m",), refused=7)
    assert [line.rstrip() for line in printed(of).splitlines() if not line.startswith("─")] == [
        "e.jsonl · 3 events in 2.00 s, 2 a second",
        "1 allowed · 0 changed · 1 denied · 1 failed · 1 bad line",
        "",
        "Denied",
        "plugin  why  at      events  first in line",
        "guard   no   search       1              1",
        "",
        "Redacted or rewritten",
        "plugin  what  how many",
        "pii     pii   card 2",
        "",
        "Failed",
        "plugin  code          message       events",
        "guard   plugin_error  boom\\x1b[31m       1",
        "",
        "Plugins",
        "plugin  hook             mode        calls  denied  would deny  changed  errors     p50     p99",
        "guard   tool_pre_invoke  sequential      2       1           -        -       -  1.0 µs  1.0 µs",
        "pii     tool_pre_invoke  sequential      1       -           -        1       -  1.0 µs  1.0 µs",
        "",
        "note: plugin `d` was switched off after it failed",
        "note: plugin `m` did not start, and the run went on without it",
        "note: 7 background tasks were refused; raise `background_limit`",
    ]


def test_a_narrow_terminal_gets_a_table_that_fits() -> None:
    text = printed(summary(tally_of(denial(1))), width=80)
    assert "tool_pre_invoke" in text
    assert "  guard" in text
    assert "sequential" not in text
    assert "…" not in text


def test_a_policy_on_trial_is_told_by_reason_in_print_and_as_json() -> None:
    of = summary(tally_of(would_be_denial(4)))
    lines = [line.rstrip() for line in printed(of).splitlines() if not line.startswith("─")]
    assert lines[3:6] == [
        "Would have been denied",
        "plugin  why  at      events  first in line",
        "trial   no   search       1              4",
    ]
    document = of.document()
    assert document["denials"] == []
    assert document["would_be_denials"] == [
        {"plugin": "trial", "code": "NO", "reason": "no", "count": 1, "first_event": 4, "subjects": ["search"]}
    ]


def test_long_lists_are_cut_with_a_count() -> None:
    text = printed(summary(tally_of(*(denial(line, f"reason {line}") for line in range(1, 21)))))
    (rest,) = (line for line in text.splitlines() if "more" in line)
    assert rest.split() == ["and", "8", "more", "8"]


def test_the_document_holds_everything_as_json() -> None:
    document = json.loads(json.dumps(summary(tally_of(denial(1), FAILED), interrupted=True).document()))
    assert document["events"] == 2
    assert document["interrupted"] is True
    assert document["plugins"] == [
        {
            "plugin": "guard",
            "hook": "tool_pre_invoke",
            "mode": "sequential",
            "calls": 2,
            "denials": 1,
            "would_be_denials": 0,
            "changes": 0,
            "errors": 0,
            "p50_us": 1.0,
            "p99_us": 1.0,
        }
    ]
    assert document["denials"] == [
        {"plugin": "guard", "code": "NO", "reason": "no", "count": 1, "first_event": 1, "subjects": ["search"]}
    ]
    assert document["failures"][0]["count"] == 1


def test_an_empty_stream_has_a_summary_too() -> None:
    assert printed(summary(Tally())).splitlines()[0] == "e.jsonl · 0 events in 2.00 s"
