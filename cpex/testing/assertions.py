"""Assertions on results, whose failure says what the pipeline did instead.

Each returns what a test looks at next: the violation of a denial, the payload of a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginResult, PluginViolation

__all__ = ["assert_allowed", "assert_changed", "assert_denied", "assert_unchanged", "record_of"]

_SHOWN = 200
"""Characters of a value that a message shows."""


def assert_allowed(result: PluginResult[Any]) -> PluginResult[Any]:
    """The call goes on."""
    __tracebackhide__ = True
    if not result.continue_processing:
        raise AssertionError(f"expected the call to be allowed, but it was {_decision(result)}")
    return result


def assert_denied(
    result: PluginResult[Any], code: str | None = None, *, reason: str | None = None, by: str | None = None
) -> PluginViolation:
    """The call ends, and the violation says why.

    Args:
        code: The violation's code, whole.
        reason: Text that its reason contains.
        by: Name of the plugin that denied.
    """
    __tracebackhide__ = True
    wanted = {"with code": code, "for the reason": reason, "by": by}
    expected = " ".join(["a denial", *(f"{word} `{text}`" for word, text in wanted.items() if text is not None)])
    violation = result.violation
    if result.continue_processing or violation is None:
        raise AssertionError(f"expected {expected}, but the call was {_decision(result)}")
    if (
        code not in (None, violation.code)
        or by not in (None, violation.plugin_name)
        or (reason is not None and reason not in violation.reason)
    ):
        raise AssertionError(f"expected {expected}, but the call was {_decision(result)}")
    return violation


def assert_changed(result: PluginResult[Any], **fields: Any) -> Any:
    """The call goes on with another payload.

    Args:
        fields: Fields of the new payload, and what they must equal.

    Returns:
        The new payload.
    """
    __tracebackhide__ = True
    assert_allowed(result)
    payload = result.modified_payload
    if payload is None:
        raise AssertionError(f"expected a changed payload, but the call was {_decision(result)}")
    for name, expected in fields.items():
        actual = getattr(payload, name)
        if actual != expected:
            raise AssertionError(f"expected `{name}` to become {_shown(expected)}, but it is {_shown(actual)}")
    return payload


def assert_unchanged(result: PluginResult[Any]) -> PluginResult[Any]:
    """The call goes on with the payload as the host made it."""
    __tracebackhide__ = True
    assert_allowed(result)
    if result.modified_payload is not None:
        raise AssertionError(f"expected the payload unchanged, but it became {_shown(result.modified_payload)}")
    return result


def record_of(
    executions: PluginResult[Any] | Iterable[ControlExecutionRecord], plugin: str = "p"
) -> ControlExecutionRecord:
    """The one record of a plugin: what it answered, what became of that, how long it took.

    Args:
        executions: A result, or the records of one, or those that an error carries.
    """
    records = list(executions.executions if isinstance(executions, PluginResult) else executions)
    found = [each for each in records if each.plugin_name == plugin]
    if len(found) != 1:
        names = ", ".join(f"`{each.plugin_name}`" for each in records) or "none"
        raise AssertionError(f"expected one record of `{plugin}`, found {len(found)}; records of: {names}")
    return found[0]


def _decision(result: PluginResult[Any]) -> str:
    violation = result.violation
    if result.continue_processing:
        text = "allowed and unchanged" if result.modified_payload is None else "allowed and changed"
    elif violation is None:
        text = "denied without a violation"
    else:
        by = f" by `{violation.plugin_name}`" if violation.plugin_name else ""
        text = f"denied{by} with code `{violation.code}`: {violation.reason}"
    ran = ", ".join(f"{each.plugin_name} ({each.mode.value}): {each.status.value}" for each in result.executions)
    return f"{text}; plugins that took part: {ran or 'none'}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
