"""Events and decisions: the lines that `cpex run` reads and writes.

Both are JSON Lines, UTF-8, one object a line. This module knows their form; what an event means to a pipeline is the
business of `cpex.tools.run`.

Source: docs/reference/events.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from cpex.framework.errors import Fault
from cpex.framework.loader.faults import path_text
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel, PluginViolation
from cpex.tools.changes import Operation, jsonable

__all__ = ["BadEvent", "Decision", "Event", "bad_event", "invalid", "parse_event"]

_NS_PER_US = 1000
_MOST_PROBLEMS = 5
_BOM = b"\xef\xbb\xbf"


class BadEvent(ValueError):
    """A line that cannot be judged.

    Attributes:
        fault: What is wrong with it, where, and how to mend it. Never holds values of the line.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.render())
        self.fault = fault


def _as_text(value: Any) -> Any:
    # Pydantic would take a number for seconds since 1970.
    if value is not None and not isinstance(value, str):
        raise ValueError("must be RFC 3339 text")
    return value


def _in_utc(moment: datetime | None) -> datetime | None:
    # The offset may lead out of the years that there are.
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None


class _Form(BaseModel):
    """The form of an event; keys that it does not know are kept."""

    model_config = ConfigDict(extra="allow")

    v: Literal[1] = 1
    hook: str = Field(min_length=1, max_length=256)
    payload: dict[str, Any]
    context: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None
    session: str | None = None
    ts: Annotated[AwareDatetime | None, BeforeValidator(_as_text), AfterValidator(_in_utc)] = None

    @field_validator("v", mode="before")
    @classmethod
    def _default_version(cls, value: Any) -> Any:
        return 1 if value is None else value


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a host asked a pipeline to judge."""

    line: int
    """Where it stands in its stream, from 1."""
    hook: str
    payload: dict[str, Any]
    """As it was written; not yet checked against the hook's payload class."""
    context: dict[str, Any]
    """Fields of `GlobalContext`, with a `request_id` in any case; not yet checked."""
    extensions: dict[str, Any] | None
    """JSON form of `Extensions`; not yet checked."""
    session: str | None
    ts: Any
    """An aware `datetime`, or `None`."""
    unknown: dict[str, Any]
    """Keys that belong to somebody else; they travel on to the decision."""


def parse_event(line: int, data: bytes, file: str) -> Event:
    """Read one line.

    Args:
        line: Its number, from 1.
        file: How messages call the stream.

    Raises:
        BadEvent: The line is no JSON, or no event.
    """
    try:
        text = (data.removeprefix(_BOM) if line == 1 else data).decode("utf-8")
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        fault = _json_fault(line, error.msg, file, column=error.colno)
        raise BadEvent(fault) from None
    # Bytes that are not UTF-8, NaN, numbers of absurd length, and nesting beyond any use.
    except (ValueError, RecursionError) as error:
        raise BadEvent(_json_fault(line, _why(error), file)) from None
    if not isinstance(value, dict):
        raise bad_event(line, file, "event-form", f"expected a JSON object, not {_kind(value)}", _FORM_HELP)
    try:
        form = _Form.model_validate(value)
    except ValidationError as error:
        raise invalid(line, file, "event-form", (), error, _FORM_HELP) from None
    context = dict(form.context or {})
    if context.get("request_id") is None:
        context["request_id"] = f"line-{line}"
    return Event(
        line=line,
        hook=form.hook,
        payload=form.payload,
        context=context,
        extensions=form.extensions,
        session=form.session,
        ts=form.ts,
        unknown=form.model_extra or {},
    )


_FORM_HELP = 'an event is one line such as {"hook": "tool_pre_invoke", "payload": {"name": "search", "args": {}}}'


def bad_event(line: int, file: str, code: str, what: str, help: str = "", *, column: int | None = None) -> BadEvent:
    """A line that cannot be judged, in the three parts of every message."""
    return BadEvent(Fault(code=code, message=f"line {line}: {what}", file=file, line=line, column=column, help=help))


def invalid(line: int, file: str, code: str, where: Sequence[str], error: ValidationError, help: str = "") -> BadEvent:
    """A line with a part that a model refused; every problem is told, without the values.

    Args:
        where: Keys that lead to the part, e.g. `("payload",)`.
    """
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    texts = [f"`{path_text((*where, *each['loc']))}`: {_problem(each['msg'])}" for each in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        texts.append(f"and {len(problems) - _MOST_PROBLEMS} more")
    return bad_event(line, file, code, "; ".join(texts), help)


def _problem(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _json_fault(line: int, why: str, file: str, column: int | None = None) -> Fault:
    help = "write one JSON object per line, in UTF-8"
    return bad_event(line, file, "event-json", f"no valid JSON: {_problem(why)}", help, column=column).fault


def _refuse(constant: str) -> Any:
    raise ValueError(f"`{constant}` is no JSON number")


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    if "digits" in str(error):
        return "a number of thousands of digits"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a pipeline answered to one event."""

    event: Event
    allowed: bool
    duration_ns: int
    """Nanoseconds of the whole hook call."""
    executions: Iterable[ControlExecutionRecord] = ()
    """Background plugins complete theirs in place, so a line is written when they have ended."""
    violation: PluginViolation | None = None
    changes: list[Operation] = field(default_factory=list)
    error: PluginErrorModel | None = None
    """Why the pipeline itself failed; the operation is then not allowed."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What plugins reported; it is for the summary and not written."""

    def line(self, config: str) -> bytes:
        """The decision as one line, with its line break. Keys without a value are left out.

        Args:
            config: `sha256:` digest of the configuration.
        """
        value = {key: each for key, each in self._form(config).items() if each is not None}
        # A key of somebody else's never replaces one of ours.
        return _encode({**self.event.unknown, **value})

    def _form(self, config: str) -> dict[str, Any]:
        event = self.event
        return {
            "v": 1,
            "event": event.line,
            "hook": event.hook,
            "request_id": event.context["request_id"],
            "session": event.session,
            "allowed": self.allowed,
            "violation": _violation(self.violation),
            "changes": self.changes,
            "plugins": [_execution(record) for record in self.executions],
            "error": _error(self.error),
            "duration_us": _microseconds(self.duration_ns),
            "config": config,
        }


def _violation(violation: PluginViolation | None) -> dict[str, Any] | None:
    if violation is None:
        return None
    return {
        "plugin": violation.plugin_name,
        "code": violation.code,
        "reason": violation.reason,
        "description": violation.description,
        "details": jsonable(violation.details or {}),
    }


def _error(error: PluginErrorModel | None) -> dict[str, Any] | None:
    if error is None:
        return None
    form = {"plugin": error.plugin_name or None, "code": error.code or "plugin_error", "message": error.message}
    return {key: value for key, value in form.items() if value is not None}


def _execution(record: ControlExecutionRecord) -> dict[str, Any]:
    form = {
        "name": record.plugin_name,
        "mode": record.mode.value,
        "status": record.status.value,
        "requested_allow": record.requested_allow,
        "effective_allow": record.effective_allow,
        "payload_modified": record.payload_modified,
        "extensions_modified": record.extensions_modified,
        "reason": record.reason,
        "code": record.error_code,
        "duration_us": _microseconds(record.duration_ns),
    }
    # `requested_allow: null` says that the plugin gave no answer; what else has no value is left out.
    return {key: value for key, value in form.items() if value is not None or key == "requested_allow"}


def _microseconds(nanoseconds: int) -> float:
    return round(nanoseconds / _NS_PER_US, 1)


def _encode(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can express and UTF-8 cannot.
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"
