"""Log lines that a person can read or a machine can parse, without secrets and without whole payloads.

The framework logs through the standard library and leaves it to the host what becomes of that. This module is what our
own entry points use, and what a host may use: one function that sets the process up, and two formatters.

Source: docs/operating/logs.md.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import IO, Any, Literal

from cpex.framework.errors import cause_text
from cpex.framework.secrets import MASK, is_secret_key, secrets_in, without_secrets

__all__ = ["CarefulFormatter", "JsonFormatter", "LogFormat", "TextFormatter", "configure_logs", "formatter_for"]

LogFormat = Literal["text", "json"]

MAX_MESSAGE_CHARS = 4_000
"""A message beyond this is cut, with a note of how much is missing."""
MAX_CHAIN = 8
"""How many causes of an exception are told."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logs(
    log_format: LogFormat = "text", level: int | str = logging.INFO, stream: IO[str] | None = None
) -> logging.Handler:
    """Log everything of this process to one stream, in one format. A second call replaces the first.

    Handlers of others stay.

    Args:
        stream: Standard error when left out.

    Returns:
        The handler on the root logger, for a caller who wants to take it away again.

    Raises:
        ValueError: The level is none.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(formatter_for(log_format))
    root = logging.getLogger()
    root.setLevel(level)
    for ours in [each for each in root.handlers if isinstance(each.formatter, CarefulFormatter)]:
        root.removeHandler(ours)
    root.addHandler(handler)
    return handler


def formatter_for(log_format: LogFormat) -> CarefulFormatter:
    """The formatter of a format."""
    return JsonFormatter() if log_format == "json" else TextFormatter()


class CarefulFormatter(logging.Formatter):
    """What both formats have in common: texts without secrets and of bounded length."""

    def __init__(self) -> None:
        super().__init__()
        # Once: a secret that is set later was not in the environment when the process was configured.
        self._known = secrets_in(os.environ)

    def text_of(self, record: logging.LogRecord) -> str:
        """The message, or what is wrong with it: an author's mistake must not lose the line."""
        try:
            message = record.getMessage()
        # The arguments' own code runs here.
        except Exception as error:
            message = f"{record.msg} (its arguments do not fit: {error})"
        return self.clean(message)

    def clean(self, text: str) -> str:
        """Text without secrets, cut where it is too long."""
        text = without_secrets(text, self._known) if len(text) < 2 * MAX_MESSAGE_CHARS else self._cut(text)
        return text if len(text) <= MAX_MESSAGE_CHARS else self._cut(text)

    def _cut(self, text: str) -> str:
        head = without_secrets(text[: 2 * MAX_MESSAGE_CHARS], self._known)[:MAX_MESSAGE_CHARS]
        return f"{head}… ({len(text) - len(head):,} more characters)" if len(text) > len(head) else head

    def failure_of(self, record: logging.LogRecord) -> list[dict[str, Any]]:
        """The exception of a record and its causes, the last one first: type, text and where it was raised.

        SECURITY: source lines are told, values of variables are not; pydantic's own text would quote refused values.
        """
        if not record.exc_info or record.exc_info[1] is None:
            return []
        found: list[dict[str, Any]] = []
        error: BaseException | None = record.exc_info[1]
        seen: set[int] = set()
        while error is not None and id(error) not in seen and len(found) < MAX_CHAIN:
            seen.add(id(error))
            frames = traceback.extract_tb(error.__traceback__)
            found.append(
                {
                    "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
                    "message": self.clean(cause_text(error)),
                    "at": [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames],
                }
            )
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return found


class TextFormatter(CarefulFormatter):
    """One line for a person: time, level, logger, message; an exception on lines of its own, indented.

    SECURITY: control characters are written as escapes and further lines are indented, so that no text from outside
    steers a terminal or looks like a line of ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        head = f"{_time(record)} {record.levelname} {record.name}: "
        return "\n".join([head + self.line_of(record), *self.failure_lines(record)])

    def line_of(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return _harmless(self.text_of(record))

    def failure_lines(self, record: logging.LogRecord) -> list[str]:
        """The exception and its causes."""
        lines: list[str] = []
        for index, failure in enumerate(self.failure_of(record)):
            intro = "caused by " if index else ""
            lines += [f"    {intro}{failure['type']}: {_harmless(failure['message'])}"]
            lines += [f"      at {_harmless(place)}" for place in failure["at"]]
        return lines


class JsonFormatter(CarefulFormatter):
    """One JSON object for a machine: `ts`, `level`, `logger`, `message`, and what else there is to say.

    `template` is the message before values were put in, the same for all messages of a kind. `exception` is a list, the
    exception first and its causes after it: `{"type", "message", "at": [place, …]}`. `trace_id` and `span_id` name the
    current OpenTelemetry span. Fields given as `extra` follow, where they are text, numbers or truth values.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object, pure ASCII."""
        said: dict[str, Any] = {
            "ts": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self.text_of(record),
        }
        if record.args:
            said["template"] = self.clean(str(record.msg))
        if failure := self.failure_of(record):
            said["exception"] = failure
        said |= _current_span()
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in said and isinstance(value, str | int | float | bool):
                said[key] = MASK if is_secret_key(key) else self.clean(value) if isinstance(value, str) else value
        # `NaN` is not JSON, and no reason to lose a line.
        return json.dumps(said, ensure_ascii=True, separators=(",", ":")).replace(":NaN", ":null")


def _time(record: logging.LogRecord) -> str:
    """When it was logged, by the system's clock: RFC 3339, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _harmless(text: str) -> str:
    lines = text.splitlines() or [""]
    return "\n    ".join("".join(each if each.isprintable() else ascii(each)[1:-1] for each in line) for line in lines)


def _current_span() -> dict[str, str]:
    """Ids of the current OpenTelemetry span, where the process uses it at all."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
