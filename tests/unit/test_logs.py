"""Log lines in both formats: what they hold, and what they never do."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from cpex.framework.logs import CarefulFormatter, JsonFormatter, TextFormatter, configure_logs

logger = logging.getLogger("t_framework_logs")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Limits(BaseModel):
    n: int


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger as it was."""
    before, level = list(logging.getLogger().handlers), logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = before
    logging.getLogger().setLevel(level)


def logged(log_format: Any, *arguments: Any, **more: Any) -> str:
    stream = io.StringIO()
    configure_logs(log_format, "INFO", stream)
    logger.warning(*arguments, **more)
    return stream.getvalue()


def as_json(*arguments: Any, **more: Any) -> dict[str, Any]:
    line = logged("json", *arguments, **more)
    assert line.count("\n") == 1
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    assert TIME.fullmatch(found.pop("ts"))
    return found


def fail() -> None:
    try:
        int("t0psecret, password=hunter2")
    except ValueError as error:
        raise RuntimeError("no luck with token=abc") from error


def test_a_line_for_people_has_time_level_logger_and_message() -> None:
    time, _, rest = logged("text", "%d plugins of %s", 3, "ann").partition(" ")
    assert TIME.fullmatch(time)
    assert rest == "WARNING t_framework_logs: 3 plugins of ann\n"


def test_a_line_for_machines_is_one_object_with_the_template_of_its_message() -> None:
    assert as_json("%d plugins of %s", 3, "ännchen") == {
        "level": "WARNING",
        "logger": "t_framework_logs",
        "message": "3 plugins of ännchen",
        "template": "%d plugins of %s",
    }


def test_extra_fields_are_told_in_json_and_secret_ones_masked() -> None:
    found = as_json("x", extra={"plugin": "pii", "n": 3, "api_key": "abc", "what": object(), "note": "password=abc"})
    assert (found["plugin"], found["n"], found["api_key"]) == ("pii", 3, "**********")
    assert found["note"] == "password=**********"
    assert "what" not in found


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_holds_a_secret_or_a_whole_payload(log_format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T_LOGS_PASSWORD", "correct-horse-battery")
    payload = {"args": {"text": "lorem ipsum " * 10_000, "password": "hunter2"}}
    line = logged(log_format, "called with %s by correct-horse-battery at https://ann:pw12345@host/", payload)
    assert len(line) < 5_000
    assert "more characters)" in line.replace("\\u2026", "…")
    short = logged(log_format, "with %s by correct-horse-battery at https://ann:pw12345@host/", {"password": "hunter2"})
    for secret in ("hunter2", "correct-horse", "pw12345"):
        assert secret not in short + line


def test_a_secret_is_not_cut_in_two_and_left_in_part() -> None:
    line = logged("text", "x" * 3_990 + " https://ann:t0psecret@host/" + "y" * 10_000)
    assert "t0ps" not in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_tells_causes_and_places_without_values(log_format: Any) -> None:
    try:
        fail()
    except RuntimeError:
        line = logged(log_format, "it failed", exc_info=True)
    assert "hunter2" not in line
    assert "token=abc" not in line
    if log_format == "text":
        head, first, *rest = line.splitlines()
        assert head.endswith("WARNING t_framework_logs: it failed")
        assert first == "    RuntimeError: no luck with token=**********"
        assert any(each.startswith("    caused by ValueError: ") for each in rest)
        assert all(each.startswith("    ") for each in rest)
    else:
        first, cause = json.loads(line)["exception"]
        assert (first["type"], cause["type"]) == ("RuntimeError", "ValueError")
        assert re.fullmatch(r".*test_logs\.py:\d+ in fail", cause["at"][-1])


def test_a_refused_value_is_not_quoted_by_the_refusal() -> None:
    try:
        Limits.model_validate({"n": "t0psecret"})
    except ValueError:
        found = as_json("refused", exc_info=True)
    assert found["exception"][0]["message"] == (
        "Limits: n: Input should be a valid integer, unable to parse string as an integer"
    )


def test_causes_that_refer_to_one_another_end() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert [each["message"] for each in as_json("x", exc_info=one)["exception"]] == ["a", "b"]


def test_text_from_outside_can_neither_forge_a_line_nor_steer_a_terminal() -> None:
    line = logged("text", "tool %s", "x\n2030-01-01T00:00:00.000Z ERROR cpex: forged\x1b[2J\r\u202e")
    assert line.splitlines()[1] == "    2030-01-01T00:00:00.000Z ERROR cpex: forged\\x1b[2J"
    assert "\x1b" not in line
    assert "\u202e" not in line


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_message_whose_arguments_do_not_fit_is_not_lost(formatter: CarefulFormatter) -> None:
    record = logging.makeLogRecord({"msg": "%d plugins", "args": ("three",)})
    assert "%d plugins (its arguments do not fit: " in formatter.format(record)


def test_a_number_that_is_none_leaves_valid_json() -> None:
    assert as_json("x", extra={"ratio": float("nan")})["ratio"] is None


def test_the_current_span_is_named_in_json() -> None:
    from opentelemetry import trace

    context = trace.SpanContext(0xAB, 0xCD, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        found = as_json("x")
    assert (found["trace_id"], found["span_id"]) == (f"{0xAB:032x}", f"{0xCD:016x}")


def test_configuring_twice_logs_once_and_leaves_handlers_of_others_alone() -> None:
    other, first, second = logging.NullHandler(), io.StringIO(), io.StringIO()
    logging.getLogger().addHandler(other)
    configure_logs("text", "INFO", first)
    configure_logs("json", "WARNING", second)
    logger.info("unheard")
    logger.warning("once")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "once"
    assert other in logging.getLogger().handlers


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown level: 'LOUD'"):
        configure_logs("text", "LOUD")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_record_of_any_origin_can_be_formatted(formatter: CarefulFormatter) -> None:
    assert "x" in formatter.format(logging.makeLogRecord({"msg": "x", "exc_info": (None, None, None)}))
