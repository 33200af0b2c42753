"""What exceptions carry and how they read."""

import pickle
import traceback
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.framework import errors
from cpex.framework.errors import (
    ConfigError,
    ConfigFileNotFound,
    DenialExecutionRecord,
    DenialOutcome,
    Fault,
    LoadFailure,
    PayloadSizeError,
    PluginError,
    PluginErrorModel,
    PluginLoadError,
    PluginTimeoutError,
    PluginViolation,
    PluginViolationError,
    attach_denial_outcome,
    convert_exception_to_error,
    sanitize_denial_metadata,
    tellable,
)
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.models import ControlExecutionRecord

UNKNOWN_MODE = Fault(
    code="config-unknown-value",
    message="unknown mode `sequental` for plugin `pii-filter`",
    path="plugins[2].mode",
    file="plugins/config.yaml",
    line=14,
    column=11,
    help="did you mean `sequential`?",
)


def record(**values):
    return ControlExecutionRecord(
        **{
            "plugin_id": "0" * 32,
            "plugin_name": "p",
            "plugin_kind": "k",
            "hook_name": "tool_pre_invoke",
            "mode": "sequential",
            "status": "completed",
            "reason": "free text",
            "config_keys": ["key"],
            **values,
        }
    )


def violation(**values):
    return PluginViolation(**{"reason": "r", "description": "d", "code": "CODE", **values})


@pytest.mark.conformance("D9.values")
def test_a_refused_value_is_not_quoted_in_the_failure_that_it_caused() -> None:
    with pytest.raises(ValidationError) as raised:
        ToolPreInvokePayload.model_validate({"name": "t", "args": "hunter2"})
    error = convert_exception_to_error(raised.value, "p")
    assert error.message.startswith("ValidationError('ToolPreInvokePayload: args: ")
    assert "hunter2" not in error.message


def refusal() -> ValidationError:
    # Apart from the line that a traceback shows.
    document = {"name": "t", "args": "hunter2"}
    with pytest.raises(ValidationError) as raised:
        ToolPreInvokePayload.model_validate(document)
    return raised.value


def raised_from(cause: BaseException) -> BaseException:
    try:
        raise RuntimeError("cannot judge") from cause
    except RuntimeError as error:
        return error


def raised_beside(cause: BaseException) -> BaseException:
    try:
        raise cause
    except BaseException:
        try:
            raise KeyError("other")
        except KeyError as error:
            return error


@pytest.mark.conformance("D9.values")
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda error: error,
        raised_from,
        raised_beside,
        lambda error: ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [error])]),
        lambda error: BaseExceptionGroup("several", [KeyboardInterrupt(), error]),
        lambda error: raised_from(raised_beside(ExceptionGroup("several", [error]))),
    ],
)
def test_a_traceback_for_the_log_quotes_no_refused_value_anywhere_in_its_chain(wrapped: Any) -> None:
    error = wrapped(refusal())
    text = "".join(traceback.format_exception(tellable(error)))
    assert "hunter2" in "".join(traceback.format_exception(error))
    assert "hunter2" not in text
    assert "ValidationError: ToolPreInvokePayload: args: Input should be a valid dictionary" in text
    assert type(tellable(error)).__qualname__ == type(error).__qualname__
    assert "in refusal" in text


def test_a_traceback_that_quotes_no_value_is_logged_as_it_is() -> None:
    error = raised_from(ValueError("plain"))
    assert tellable(error) is error


def test_a_failure_that_cannot_be_described_does_not_become_another_one() -> None:
    class Speechless(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    error = Speechless()
    error.__cause__ = refusal()
    assert "Speechless" in str(tellable(error))
    circle: BaseException = raised_from(refusal())
    assert circle.__cause__ is not None
    circle.__cause__.__cause__ = circle
    assert "hunter2" not in "".join(traceback.format_exception(tellable(circle)))


def test_a_plugin_error_reads_like_its_model_and_carries_it():
    model = PluginErrorModel(message="it broke", plugin_name="p", code="c")
    error = PluginError(model)

    assert str(error) == "it broke"
    assert error.error is model
    assert error.executions is None


def test_exceptions_survive_the_way_between_processes():
    error = PluginError(PluginErrorModel(message="m", plugin_name="p"))
    error.executions = [record()]
    denied = PluginViolationError("blocked", violation())
    denied.executions = [record()]

    assert pickle.loads(pickle.dumps(error)).executions == error.executions
    assert pickle.loads(pickle.dumps(error)).error == error.error
    copied = pickle.loads(pickle.dumps(denied))
    assert (copied.message, copied.violation, copied.executions) == ("blocked", denied.violation, denied.executions)
    assert pickle.loads(pickle.dumps(ConfigError([UNKNOWN_MODE]))).faults == [UNKNOWN_MODE]
    assert pickle.loads(pickle.dumps(ConfigFileNotFound([UNKNOWN_MODE]))).filename == "plugins/config.yaml"


def test_the_tree_lets_callers_catch_what_they_know():
    assert issubclass(PayloadSizeError, ValueError)
    assert issubclass(PluginLoadError, RuntimeError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigFileNotFound, FileNotFoundError)
    assert not issubclass(PluginTimeoutError, TimeoutError | ValueError)


def test_a_fault_says_what_where_and_how_to_mend_it():
    assert UNKNOWN_MODE.render() == (
        "error: unknown mode `sequental` for plugin `pii-filter` [config-unknown-value]\n"
        "  at plugins/config.yaml:14:11 (plugins[2].mode)\n"
        "  help: did you mean `sequential`?"
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "error: m [c]"),
        ({"path": "plugins"}, "error: m [c]\n  at (plugins)"),
        ({"file": "a.yaml"}, "error: m [c]\n  at a.yaml"),
        ({"line": 3, "column": 1}, "error: m [c]\n  at 3:1"),
        ({"file": "a.yaml", "line": 3}, "error: m [c]\n  at a.yaml:3"),
        ({"help": "h"}, "error: m [c]\n  help: h"),
    ],
)
def test_what_a_fault_does_not_know_is_left_out(values, text):
    assert Fault(code="c", message="m", **values).render() == text


def test_a_config_error_tells_every_fault():
    other = Fault(code="config-yaml-syntax", message="the text is no YAML", file="a.yaml", line=1, column=1)
    error = ConfigError([UNKNOWN_MODE, other])

    assert error.faults == [UNKNOWN_MODE, other]
    assert str(error) == f"{UNKNOWN_MODE.render()}\n{other.render()}"


def test_a_long_list_of_faults_is_cut_with_a_count():
    text = str(ConfigError([Fault(code="c", message=str(number)) for number in range(53)]))

    assert text.endswith("error: 49 [c]\nand 3 more")


def test_a_missing_file_is_a_config_error_and_a_file_error():
    fault = Fault(code="config-not-found", message="no such file", file="a.yaml", help="pass another path")
    error = ConfigFileNotFound([fault])

    assert str(error) == fault.render()
    assert (error.filename, error.errno, error.strerror) == ("a.yaml", 2, "no such file")


def test_a_load_error_names_every_plugin_that_failed_with_place_and_cause():
    error = PluginLoadError(
        [
            LoadFailure("quota", ModuleNotFoundError("No module named 'redis'"), "plugins/config.yaml:31:5"),
            LoadFailure("pii", KeyError()),
        ]
    )

    assert str(error) == (
        "Plugin initialization failed: quota - No module named 'redis'\n"
        "  at plugins/config.yaml:31:5\n"
        "Plugin initialization failed: pii - KeyError"
    )
    assert [failure.plugin for failure in error.failures] == ["quota", "pii"]


def test_any_exception_can_be_described_as_a_failure_of_a_plugin():
    model = convert_exception_to_error(ValueError("q"), "p")

    assert (model.message, model.plugin_name, model.code) == ("ValueError('q')", "p", "")


@pytest.mark.parametrize("metadata", [None, [], "text", 5, {str(i): i for i in range(17)}])
def test_denial_metadata_that_is_no_small_mapping_is_dropped_whole(metadata):
    assert sanitize_denial_metadata(metadata) == {}


def test_denial_metadata_keeps_flags_and_finite_numbers_under_plain_labels():
    class Number(int):
        pass

    class Text(str):
        __slots__ = ()

    kept = {"flag": True, "count": 2**63 - 1, "score.p-95_x": 0.5}
    dropped = {
        "text": "secret",
        "big": 2**63,
        "nan": float("nan"),
        "inf": float("inf"),
        "subclass": Number(1),
        "with space": 1,
        "": 1,
        "x" * 65: 1,
        5: 1,
        Text("label"): 1,
        "newline\n": 1,
    }

    assert sanitize_denial_metadata(MappingProxyType({**kept, **dropped})) == kept


def test_an_outcome_holds_labels_numbers_and_flags_only():
    outcome = DenialOutcome.from_execution(
        record(error_code="quota.exceeded", duration_ns=5),
        violation(code="has spaces", mcp_error_code=2**31, http_status_code=429),
        {"count": 1, "why": "text"},
    )

    assert outcome.execution == DenialExecutionRecord.from_execution(record(error_code="quota.exceeded", duration_ns=5))
    assert (outcome.execution.error_code, outcome.execution.status) == ("quota.exceeded", "completed")
    assert not hasattr(outcome.execution, "reason")
    assert (outcome.violation_code, outcome.mcp_error_code, outcome.http_status_code) == (None, None, 429)
    assert dict(outcome.metadata) == {"count": 1}
    with pytest.raises(TypeError):
        outcome.metadata["count"] = 2


def test_an_outcome_without_violation_has_no_codes():
    outcome = DenialOutcome.from_execution(record(), None, None)

    assert (outcome.violation_code, outcome.mcp_error_code, outcome.http_status_code) == (None, None, None)


def test_an_outcome_is_attached_once():
    error = PluginViolationError("blocked", violation())

    attach_denial_outcome(error, record(), {"count": 1})
    first = error.denial_outcome
    attach_denial_outcome(error, record(plugin_name="other"), {})

    assert error.denial_outcome is first
    assert dict(first.metadata) == {"count": 1}


def test_a_violation_that_plugin_code_made_gets_no_outcome_by_itself():
    error = PluginViolationError("blocked", violation())
    error.attach_denial_outcome(record())
    assert error.denial_outcome is None

    error._denial_metadata = {"count": 1}
    error.attach_denial_outcome(record())
    assert dict(error.denial_outcome.metadata) == {"count": 1}


def test_every_public_name_is_there():
    assert all(hasattr(errors, name) for name in errors.__all__)
