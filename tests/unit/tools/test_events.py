from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.framework.models.mode import ControlExecutionStatus, PluginMode
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel, PluginViolation
from cpex.tools.events import BadEvent, Decision, Event, parse_event

FULL = {
    "v": 1,
    "hook": "tool_pre_invoke",
    "payload": {"name": "search", "args": {}},
    "context": {"request_id": "r1", "user": "ada"},
    "extensions": {"meta": {}},
    "session": "s1",
    "ts": "2026-01-02T03:04:05+01:00",
    "trace": {"id": 7},
}


def event(**keys: Any) -> Event:
    return parse_event(3, json.dumps({"hook": "tool_pre_invoke", "payload": {}, **keys}).encode(), "e.jsonl")


def test_an_event_is_read_with_all_its_parts() -> None:
    read = parse_event(12, json.dumps(FULL).encode(), "e.jsonl")
    assert (read.line, read.hook, read.payload) == (12, "tool_pre_invoke", {"name": "search", "args": {}})
    assert (read.context, read.extensions, read.session) == ({"request_id": "r1", "user": "ada"}, {"meta": {}}, "s1")
    assert read.ts == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert read.unknown == {"trace": {"id": 7}}


def test_a_request_without_an_id_is_named_after_its_line() -> None:
    assert event().context == {"request_id": "line-3"}
    assert event(context={"user": "ada"}).context == {"user": "ada", "request_id": "line-3"}


def test_a_byte_order_mark_may_begin_the_stream_and_nothing_else() -> None:
    data = b'\xef\xbb\xbf{"hook":"h","payload":{}}'
    assert parse_event(1, data, "e.jsonl").hook == "h"
    with pytest.raises(BadEvent):
        parse_event(2, data, "e.jsonl")


FORM_HELP = (
    '  help: an event is one line such as {"hook": "tool_pre_invoke", "payload": {"name": "search", "args": {}}}'
)
JSON_HELP = "  help: write one JSON object per line, in UTF-8"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b'{"hook": "h", "payload": {}',
            f"error: line 3: no valid JSON: expecting ',' delimiter [event-json]\n  at e.jsonl:3:28\n{JSON_HELP}",
        ),
        (b"\xff{}", f"error: line 3: no valid JSON: byte 1 is not UTF-8 [event-json]\n  at e.jsonl:3\n{JSON_HELP}"),
        (
            b'{"hook": "h", "payload": {"a": NaN}}',
            f"error: line 3: no valid JSON: `NaN` is no JSON number [event-json]\n  at e.jsonl:3\n{JSON_HELP}",
        ),
        (b"[" * 100_000, f"error: line 3: no valid JSON: nested too deeply [event-json]\n  at e.jsonl:3\n{JSON_HELP}"),
        (
            b"[" + b"1" * 5000 + b"]",
            f"error: line 3: no valid JSON: a number of thousands of digits [event-json]\n  at e.jsonl:3\n{JSON_HELP}",
        ),
        (
            b"[1]",
            f"error: line 3: expected a JSON object, not an array [event-form]\n  at e.jsonl:3\n{FORM_HELP}",
        ),
        (
            b'{"payload": "secret", "ts": 5}',
            "error: line 3: `hook`: field required; `payload`: input should be a valid dictionary; "
            f"`ts`: must be RFC 3339 text [event-form]\n  at e.jsonl:3\n{FORM_HELP}",
        ),
        (
            b'{"v": 2, "hook": "h", "payload": {}, "ts": "2026-01-01T00:00:00"}',
            "error: line 3: `v`: input should be 1; `ts`: input should have timezone info [event-form]\n"
            f"  at e.jsonl:3\n{FORM_HELP}",
        ),
        *(
            (
                b'{"hook": "h", "payload": {}, "ts": "' + ts + b'"}',
                "error: line 3: `ts`: must lie between the years 1 and 9999 in UTC [event-form]\n"
                f"  at e.jsonl:3\n{FORM_HELP}",
            )
            for ts in (b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59")
        ),
    ],
)
def test_a_line_that_is_no_event_is_told_with_its_place_and_without_its_values(data: bytes, text: str) -> None:
    with pytest.raises(BadEvent) as caught:
        parse_event(3, data, "e.jsonl")
    assert str(caught.value) == text


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,hookpayld 1\\u', max_size=60).map(str.encode))
def test_whatever_a_line_holds_it_is_an_event_or_a_bad_one(data: bytes) -> None:
    with contextlib.suppress(BadEvent):
        assert parse_event(1, data, "e.jsonl").line == 1


def record(**fields: Any) -> ControlExecutionRecord:
    values: dict[str, Any] = {
        "plugin_id": "0" * 32,
        "plugin_name": "guard",
        "plugin_kind": "k",
        "hook_name": "tool_pre_invoke",
        "mode": PluginMode.SEQUENTIAL,
        "status": ControlExecutionStatus.COMPLETED,
        "requested_allow": True,
        "duration_ns": 12_345,
    }
    return ControlExecutionRecord(**{**values, **fields})


def test_a_decision_has_the_documented_form() -> None:
    violation = PluginViolation(reason="no", description="Not that.", code="NO", details={"n": 1})
    violation.plugin_name = "guard"
    denial = record(requested_allow=False, effective_allow=False, reason="no", error_code="NO")
    decision = Decision(
        parse_event(12, json.dumps(FULL).encode(), "e.jsonl"),
        allowed=False,
        duration_ns=1_500_000,
        executions=[denial],
        violation=violation,
        changes=[{"op": "remove", "path": "/a"}],
    )
    line = decision.line("sha256:00")
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "v": 1,
        "event": 12,
        "hook": "tool_pre_invoke",
        "request_id": "r1",
        "session": "s1",
        "allowed": False,
        "violation": {"plugin": "guard", "code": "NO", "reason": "no", "description": "Not that.", "details": {"n": 1}},
        "changes": [{"op": "remove", "path": "/a"}],
        "plugins": [
            {
                "name": "guard",
                "mode": "sequential",
                "status": "completed",
                "requested_allow": False,
                "effective_allow": False,
                "payload_modified": False,
                "extensions_modified": False,
                "reason": "no",
                "code": "NO",
                "duration_us": 12.3,
            }
        ],
        "duration_us": 1500.0,
        "config": "sha256:00",
        "trace": {"id": 7},
    }


def test_what_has_no_value_is_left_out_of_a_decision() -> None:
    written = json.loads(Decision(event(), allowed=True, duration_ns=0, executions=[record()]).line("c"))
    assert written.keys() == {
        "v",
        "event",
        "hook",
        "request_id",
        "allowed",
        "changes",
        "plugins",
        "duration_us",
        "config",
    }
    assert written["plugins"][0].keys() >= {"requested_allow"}
    assert "reason" not in written["plugins"][0]


def test_a_failed_call_names_plugin_and_code() -> None:
    failure = PluginErrorModel(message="boom", plugin_name="guard", code="")
    written = json.loads(Decision(event(), allowed=False, duration_ns=0, error=failure).line("c"))
    assert written["error"] == {"plugin": "guard", "code": "plugin_error", "message": "boom"}
    assert written["allowed"] is False


def test_a_key_of_somebody_elses_never_replaces_one_of_ours() -> None:
    written = json.loads(Decision(event(allowed=True, plugins="none", mine=1), allowed=False, duration_ns=0).line("c"))
    assert (written["allowed"], written["plugins"], written["mine"]) == (False, [], 1)


def test_text_that_utf8_cannot_hold_is_written_as_an_escape() -> None:
    data = b'{"hook": "h", "payload": {}, "note": "\\ud800 \xc3\xa9"}'
    assert b'"\\ud800 \\u00e9"' in Decision(parse_event(1, data, "e"), allowed=True, duration_ns=0).line("c")


def test_details_of_a_violation_may_hold_anything() -> None:
    violation = PluginViolation(reason="r", description="d", code="c", details={"set": {1}, "nan": float("nan")})
    written = json.loads(Decision(event(), allowed=False, duration_ns=0, violation=violation).line("c"))
    assert written["violation"]["details"] == {"set": [1], "nan": None}
