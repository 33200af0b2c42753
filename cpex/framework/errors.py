"""Every exception of the framework, and the parts that their messages are made of.

    Exception
    ├── PluginError              a plugin failed and the call with it, or a plugin is not as it must be
    ├── PluginViolationError     a plugin denied
    ├── PluginTimeoutError       one plugin took too long; reaches only callers of a single plugin
    ├── ValueError
    │   ├── PayloadSizeError     a payload is over the limit
    │   └── ConfigError          a configuration has faults, listed with their places
    │       └── ConfigFileNotFound   (also a FileNotFoundError) the file is missing or unreadable
    ├── RuntimeError
    │   ├── PluginLoadError      plugins could not be started
    │   └── GuardError           an operation cannot be guarded as it stands
    │       └── CoverageError    an operation went past a mandatory hook
    └── TierViolationError       lives in `cpex.framework.extensions`, beside the rules that it is about

`DenialOutcome` describes a denial in terms that are safe to export to telemetry: labels, numbers and flags, no texts.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from pydantic import ValidationError

from cpex.framework.models.mode import PluginMode
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel, PluginViolation

__all__ = [
    "ConfigError",
    "ConfigFileNotFound",
    "ControlExecutionRecord",
    "CoverageError",
    "DenialExecutionRecord",
    "DenialMetadataValue",
    "DenialOutcome",
    "Fault",
    "GuardError",
    "LoadFailure",
    "PayloadSizeError",
    "PluginError",
    "PluginErrorModel",
    "PluginLoadError",
    "PluginMode",
    "PluginTimeoutError",
    "PluginViolation",
    "PluginViolationError",
    "attach_denial_outcome",
    "convert_exception_to_error",
    "denial_in",
    "sanitize_denial_metadata",
    "tellable",
]

DenialMetadataValue: TypeAlias = bool | int | float
"""What metadata about a denial may hold; text is left out, since it could carry payload."""

MAX_DENIAL_METADATA = 16
"""Entries; metadata with more is dropped whole."""
MAX_FAULTS_SHOWN = 50
"""Faults in the text of a `ConfigError`; `faults` has them all."""
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_HTTP_STATUS = range(100, 600)


class PluginError(Exception):
    """A plugin failed, and the call with it; or a plugin is not as it must be.

    Attributes:
        error: What failed: message, plugin name, code, details, MCP error code.
        executions: What each plugin did up to the failure, the failed one last; `None` outside a hook call.
    """

    def __init__(self, error: PluginErrorModel) -> None:
        super().__init__(error.message)
        self.error = error
        self.executions: list[ControlExecutionRecord] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.error,), {"executions": self.executions}


class PluginViolationError(Exception):
    """A plugin denied, and the host asked for denials as exceptions. A plugin may raise it, too, to deny.

    Attributes:
        message: Fit to be shown to an end user; also the exception's text.
        violation: Why; `None` when the plugin did not say.
        executions: What each plugin did up to the denial, the denier last; `None` while it is on its way.
        denial_outcome: The denial in terms for telemetry; `None` until the framework has attached it.
    """

    def __init__(self, message: str, violation: PluginViolation | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.violation = violation
        self.executions: list[ControlExecutionRecord] | None = None
        self.denial_outcome: DenialOutcome | None = None
        self._denial_metadata: Mapping[str, DenialMetadataValue] | None = None

    def attach_denial_outcome(self, record: ControlExecutionRecord) -> None:
        """Set `denial_outcome` from the denier's record, once, if the framework has noted the denial's metadata."""
        if self._denial_metadata is not None and self.denial_outcome is None:
            self.denial_outcome = DenialOutcome.from_execution(record, self.violation, self._denial_metadata)


def denial_in(error: BaseException) -> PluginViolationError | None:
    """The denial that an exception is; `None` for every other one.

    A task group raises what its tasks raised in an `ExceptionGroup`. One that holds a denial is that denial, whatever
    else went wrong beside it: as a failure it would be for `on_error` to let pass.
    """
    if isinstance(error, PluginViolationError):
        return error
    if isinstance(error, ExceptionGroup):
        return next((found for each in error.exceptions if (found := denial_in(each)) is not None), None)
    return None


class PluginTimeoutError(Exception):
    """One plugin took longer than it may. Hook calls turn it into what the plugin's `on_error` says."""


class PayloadSizeError(ValueError):
    """The content of a payload is over the limit; no plugin was called."""


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """One plugin that could not be started."""

    plugin: str
    cause: BaseException
    location: str | None = None
    """Where the configuration names the plugin, as `file:line:column`; `None` when it came from no file."""

    def render(self) -> str:
        """The text of one failure, with its place on a second line when there is one."""
        text = f"Plugin initialization failed: {self.plugin} - {cause_text(self.cause)}"
        return f"{text}\n  at {self.location}" if self.location else text


def cause_text(cause: BaseException) -> str:
    """What an exception says, in one place for messages and logs.

    Pydantic's own text quotes the refused values, and a refused setting may be a secret: places and reasons are told.
    """
    if isinstance(cause, ValidationError):
        errors = cause.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}" for each in errors)
        # A variable of the environment is known by its own name.
        return told if all(str(each["loc"][:1]).isupper() for each in errors) else f"{cause.title}: {told}"
    return str(cause) or type(cause).__name__


def tellable(error: BaseException) -> BaseException:
    """An exception for the traceback of a log line: itself, unless it or one that it comes from is pydantic's.

    SECURITY: a traceback prints the text of every exception of the chain, and pydantic's quotes the refused values.
    Then it is a chain of stand-ins with the same type names, tracebacks and causes, and with texts that quote none.
    """
    if not any(isinstance(each, ValidationError) for each in _chain(error)):
        return error
    try:
        return _stand_in(error, {})
    # Texts that cannot be made, chains deeper than the stack: what is told of a failure must not become another one.
    except Exception:
        return Exception(f"{type(error).__name__} (its traceback would quote values)")


def _chain(error: BaseException) -> Iterator[BaseException]:
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            todo += [each.__cause__, each.__context__]
            todo += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


def _stand_in(error: BaseException, made: dict[int, BaseException]) -> BaseException:
    if id(error) in made:
        return made[id(error)]
    kind = type(error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    told: BaseException
    if isinstance(error, BaseExceptionGroup):
        inner = [_stand_in(each, made) for each in error.exceptions]
        told = type(kind.__name__, (BaseExceptionGroup,), names)(error.message, inner)
    else:
        told = type(kind.__name__, (Exception,), names)(cause_text(error))
    made[id(error)] = told.with_traceback(error.__traceback__)
    told.__cause__ = _stand_in(error.__cause__, made) if error.__cause__ is not None else None
    told.__context__ = _stand_in(error.__context__, made) if error.__context__ is not None else None
    told.__suppress_context__ = error.__suppress_context__
    return told


class PluginLoadError(RuntimeError):
    """Plugins that may not be missing could not be loaded, constructed, initialised or registered.

    Nothing of this start-up is left registered. The text tells of every failure, beginning each with
    `Plugin initialization failed: <name> - <cause>`.

    Attributes:
        failures: Never empty, in the order of the configuration.
    """

    def __init__(self, failures: Iterable[LoadFailure]) -> None:
        self.failures = list(failures)
        super().__init__("\n".join(failure.render() for failure in self.failures))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failures,)


class GuardError(RuntimeError):
    """An operation cannot be guarded as it stands: no plugins run, or one rewrote what the guard cannot follow."""


class CoverageError(GuardError):
    """An operation went past a mandatory hook, and the host wants that to stop it.

    Attributes:
        kind: Such as `tool`.
        target: The tool, prompt, resource or agent.
        missing: The hooks that have not run.
    """

    def __init__(self, message: str, kind: str, target: str, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.kind = kind
        self.target = target
        self.missing = missing

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.kind, self.target, self.missing)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a configuration: what, where, and how to mend it."""

    code: str
    """Stable, e.g. `config-unknown-key`; docs/reference/config-errors.md lists them."""
    message: str
    path: str = ""
    """Where in the document, e.g. `plugins[2].mode`; empty for the document as a whole."""
    file: str | None = None
    line: int | None = None
    """From 1; `None` when unknown."""
    column: int | None = None
    """From 1; `None` when unknown."""
    help: str = ""

    @property
    def location(self) -> str:
        """`file:line:column` as far as it is known; empty when nothing is."""
        place = [str(part) for part in (self.line, self.column) if part is not None]
        return ":".join(([self.file] if self.file else []) + place) if place or self.file else ""

    def render(self) -> str:
        """Up to three lines: error with code, place with path, help; parts that are unknown are left out."""
        lines = [f"error: {self.message} [{self.code}]"]
        path = f"({self.path})" if self.path else ""
        place = " ".join(part for part in (self.location, path) if part)
        if place:
            lines.append(f"  at {place}")
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class ConfigError(ValueError):
    """A configuration cannot be used. The text tells of every fault, what, where and how to mend it.

    Attributes:
        faults: Never empty, in order of position.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__(_render(self.faults))

    def __str__(self) -> str:
        # One of the derived classes is an OSError as well, which would write a text of its own.
        return _render(self.faults)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.faults,)


class ConfigFileNotFound(ConfigError, FileNotFoundError):
    """The configuration file is missing or cannot be read.

    Attributes:
        errno: `ENOENT`.
        filename: The path that was asked for.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        super().__init__(faults)
        self.errno = errno.ENOENT
        self.strerror = self.faults[0].message if self.faults else ""
        self.filename = self.faults[0].file if self.faults else None


def _render(faults: Sequence[Fault]) -> str:
    texts = [fault.render() for fault in faults[:MAX_FAULTS_SHOWN]]
    if len(faults) > MAX_FAULTS_SHOWN:
        texts.append(f"and {len(faults) - MAX_FAULTS_SHOWN} more")
    return "\n".join(texts)


@dataclass(frozen=True)
class DenialExecutionRecord:
    """The denier's part in the call: the execution record without its free texts."""

    plugin_id: str
    plugin_name: str
    plugin_kind: str
    hook_name: str
    mode: PluginMode
    status: str
    requested_allow: bool | None
    effective_allow: bool
    matched: bool | None
    applied: bool
    payload_modified: bool
    extensions_modified: bool
    duration_ns: int
    """Nanoseconds on the monotonic clock."""
    error_code: str | None
    """A label, or `None` when the plugin's code is not fit to be one."""

    @classmethod
    def from_execution(cls, execution: ControlExecutionRecord) -> DenialExecutionRecord:
        """Take over what is safe to export."""
        return cls(
            plugin_id=execution.plugin_id,
            plugin_name=execution.plugin_name,
            plugin_kind=execution.plugin_kind,
            hook_name=execution.hook_name,
            mode=execution.mode,
            status=str(execution.status),
            requested_allow=execution.requested_allow,
            effective_allow=execution.effective_allow,
            matched=execution.matched,
            applied=execution.applied,
            payload_modified=execution.payload_modified,
            extensions_modified=execution.extensions_modified,
            duration_ns=execution.duration_ns,
            error_code=_label(execution.error_code),
        )


@dataclass(frozen=True)
class DenialOutcome:
    """A denial in terms that are safe to export to telemetry."""

    execution: DenialExecutionRecord
    violation_code: str | None
    """A label, or `None` when the plugin's code is not fit to be one."""
    mcp_error_code: int | None
    """Within signed 32 bits."""
    http_status_code: int | None
    """100-599."""
    metadata: Mapping[str, DenialMetadataValue]
    """Read-only; at most 16 entries."""

    @classmethod
    def from_execution(
        cls,
        execution: ControlExecutionRecord,
        violation: PluginViolation | None,
        metadata: Mapping[str, DenialMetadataValue] | None,
    ) -> DenialOutcome:
        """Take over what is safe to export from a record, its violation and its metadata."""
        return cls(
            execution=DenialExecutionRecord.from_execution(execution),
            violation_code=_label(violation.code) if violation is not None else None,
            mcp_error_code=_int_in(_INT32, violation.mcp_error_code) if violation is not None else None,
            http_status_code=_int_in(_HTTP_STATUS, violation.http_status_code) if violation is not None else None,
            metadata=MappingProxyType(sanitize_denial_metadata(metadata)),
        )


def sanitize_denial_metadata(metadata: Any) -> dict[str, DenialMetadataValue]:
    """Keep the entries of a plugin's denial metadata that are safe to export.

    Kept are flags, whole numbers within signed 64 bits and finite floats, under names of 1-64 letters, digits, dots,
    underscores and hyphens. What is no mapping, or has more than 16 entries, comes back empty.
    """
    if not isinstance(metadata, Mapping) or len(metadata) > MAX_DENIAL_METADATA:
        return {}
    return {key: value for key, value in metadata.items() if _label(key) is not None and _is_number(value)}


def attach_denial_outcome(
    error: PluginViolationError,
    record: ControlExecutionRecord,
    metadata: Mapping[str, DenialMetadataValue] | None = None,
) -> None:
    """Attach the outcome of a denial to its exception; an outcome that is already there stays.

    Args:
        record: The denier's.
        metadata: What the plugin said about its denial, as it said it.
    """
    if error.denial_outcome is None:
        error.denial_outcome = DenialOutcome.from_execution(record, error.violation, metadata)


def convert_exception_to_error(exception: BaseException, plugin_name: str) -> PluginErrorModel:
    """Describe any exception as a plugin's failure; the message is the exception's `repr`, if it has a usable one.

    Pydantic's own text quotes the values that it refused, which may be a payload: its message tells places and reasons.
    """
    try:
        told = isinstance(exception, ValidationError)
        message = f"{type(exception).__name__}({cause_text(exception)!r})" if told else repr(exception)
    # A foreign exception's own code runs here, and a failure to describe a failure must not take its place.
    except Exception:
        message = f"{type(exception).__name__} (its text cannot be made)"
    return PluginErrorModel(message=message, plugin_name=plugin_name)


# Exact types: a subclass of str or int could render as anything.


def _label(value: object) -> str | None:
    return value if type(value) is str and _LABEL.fullmatch(value) else None


def _int_in(bounds: range, value: object) -> int | None:
    return value if type(value) is int and value in bounds else None


def _is_number(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is bool or _int_in(_INT64, value) is not None
