"""What plugins answer, and the words that records use."""

import asyncio
import pickle

import pytest
from pydantic import ValidationError, model_validator

from cpex.framework.models import (
    ControlExecutionRecord,
    ControlExecutionStatus,
    OnError,
    PluginErrorModel,
    PluginMode,
    PluginPayload,
    PluginResult,
    PluginViolation,
    TransportType,
)


class Payload(PluginPayload):
    name: str
    args: dict = {}


class Other(PluginPayload):
    name: str


def test_a_result_without_arguments_allows_and_changes_nothing():
    result = PluginResult[Payload]()

    assert isinstance(result, PluginResult)
    assert (result.continue_processing, result.modified_payload, result.violation) == (True, None, None)
    assert (result.metadata, result.executions, result.retry_delay_ms, result.http_headers) == ({}, [], 0, None)


@pytest.mark.parametrize("cls", [PluginResult, PluginResult[Payload]])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"continue_processing": True},
        {"continue_processing": False},
        {"continue_processing": 1},
        {"continue_processing": True, "metadata": {"k": 1}},
        {"modified_payload": None},
    ],
)
def test_however_it_is_made_a_result_is_what_validation_makes_of_it(cls, given):
    made, validated = cls(**given), cls.model_validate(given)

    assert repr(made) == repr(validated)
    assert made == validated
    assert made.model_fields_set == validated.model_fields_set
    assert list(made.model_dump()) == list(validated.model_dump())
    assert cls(**given).model_dump_json(exclude_unset=True) == validated.model_dump_json(exclude_unset=True)
    assert pickle.loads(pickle.dumps(PluginResult(**given))) == PluginResult.model_validate(given)


def test_what_a_plugin_puts_into_its_plain_answer_is_there():
    result, other = PluginResult[Payload](continue_processing=True), PluginResult[Payload](continue_processing=True)
    result.metadata["k"] = 1
    result.retry_delay_ms = 5
    result.continue_processing = False

    assert (result.metadata, result.retry_delay_ms, result.continue_processing) == ({"k": 1}, 5, False)
    assert (other.metadata, other.retry_delay_ms, other.continue_processing) == ({}, 0, True)


def test_a_result_class_of_a_plugin_s_own_is_validated_with_all_that_it_adds():
    class Own(PluginResult[Payload]):
        score: float = 0.5

        @model_validator(mode="after")
        def note(self):
            self.metadata["noted"] = self.score
            return self

    assert Own().metadata == Own(continue_processing=True).metadata == {"noted": 0.5}
    with pytest.raises(ValidationError):
        PluginResult[Payload](continue_processing="perhaps")


def test_a_result_keeps_payload_and_violation_as_the_objects_they_are():
    payload, violation = Payload(name="a"), PluginViolation(reason="r", description="d", code="c")
    result = PluginResult[Payload](modified_payload=payload, violation=violation)

    assert result.modified_payload is payload
    assert result.violation is violation
    assert PluginResult(modified_payload=[1]).modified_payload == [1]


def test_a_typed_result_makes_its_payload_from_a_dict_and_refuses_another_class():
    assert PluginResult[Payload](modified_payload={"name": "a"}).modified_payload == Payload(name="a")
    with pytest.raises(ValidationError):
        PluginResult[Payload](modified_payload=Other(name="a"))


async def test_background_errors_are_collected_and_nothing_else():
    async def end(value):
        if isinstance(value, Exception):
            raise value
        return value

    error = PluginErrorModel(message="m", plugin_name="p")
    tasks = [asyncio.create_task(end(value)) for value in (error, None, ValueError("x"))]
    cancelled = asyncio.create_task(asyncio.Event().wait())
    cancelled.cancel()
    result = PluginResult(background_tasks=[*tasks, cancelled])

    assert await result.wait_for_background_tasks() == [error]
    assert await PluginResult().wait_for_background_tasks() == []
    assert "background_tasks" not in result.model_dump()


def test_a_payload_cannot_be_assigned_to():
    with pytest.raises(ValidationError, match="frozen"):
        Payload(name="a").name = "b"


def test_the_name_of_the_denying_plugin_is_private_and_never_blank():
    violation = PluginViolation(reason="r", description="d", code="c")
    assert violation.plugin_name == ""

    violation.plugin_name = "p"

    assert violation.plugin_name == "p"
    assert "plugin_name" not in str(violation.model_dump())
    for name in ("", " ", None, 5):
        with pytest.raises(ValueError, match="Name must be a non-empty string"):
            violation.plugin_name = name


def test_words_of_records_print_as_themselves():
    record = ControlExecutionRecord(
        plugin_id="0" * 32, plugin_name="p", plugin_kind="k", hook_name="h", mode="audit", status="timeout"
    )

    assert (str(record.mode), str(record.status), str(OnError.IGNORE)) == ("audit", "timeout", "ignore")
    assert (record.requested_allow, record.effective_allow, record.matched, record.pending) == (None, True, None, False)
    assert str(TransportType.SSE) == "TransportType.SSE"


def test_closed_sets_hold_the_documented_words():
    assert {mode.value for mode in PluginMode} == {
        "sequential",
        "transform",
        "audit",
        "concurrent",
        "fire_and_forget",
        "disabled",
    }
    assert {status.value for status in ControlExecutionStatus} == {
        "completed",
        "error",
        "timeout",
        "skipped",
        "cancelled",
        "disabled",
    }
