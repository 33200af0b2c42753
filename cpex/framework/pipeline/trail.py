"""What happened to each plugin of a call, and the result that tells it.

A plain allow is noted in short form; full records are written when somebody looks at them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from cpex.framework.models.lazy import PENDING, set_raw_dict
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginResult
from cpex.framework.pipeline.plan import Step


class Recorded(Protocol):
    """A turn that is not over yet, and writes its own record."""

    def record(self) -> ControlExecutionRecord:
        """The record, true as of now and completed in place later; every call returns the same object."""


_new = object.__new__

TrailEntry = tuple[Step, int] | ControlExecutionRecord | Recorded
"""A clean allow in short form (step, nanoseconds), a full record, or a turn in the background."""


class Trail(list[TrailEntry]):
    """What happened to each plugin of a call, in order. Fills the records of the result when somebody looks at them."""

    __slots__ = ()
    FIELDS = tuple(PluginResult.model_fields)

    def records(self) -> list[ControlExecutionRecord]:
        """The trail in full, in a list of its own; short entries are written out in place, once for everyone."""
        for index, entry in enumerate(self):
            if type(entry) is tuple:
                self[index] = entry[0].record(entry[1])
            elif not isinstance(entry, ControlExecutionRecord):
                # mypy takes an entry for a tuple still.
                self[index] = entry.record()  # type: ignore[union-attr]
        # mypy cannot follow that no tuple is left.
        return list(self)  # type: ignore[arg-type]

    def fields(self) -> tuple[str, ...]:
        return self.FIELDS

    def fill(self, name: str) -> Any:
        if name == "executions":
            return self.records()
        return {} if name == "metadata" else []

    def state(self) -> tuple[set[str], None, None]:
        return set(self.FIELDS), None, None


# What a host asks for first, in a call in which every plugin simply allowed; the rest is made when it is asked for.
_NOTHING_HAPPENED: dict[str, Any] = {
    name: field.get_default(call_default_factory=False)
    for name, field in PluginResult.model_fields.items()
    if field.default_factory is None
}


def result_of(
    trail: Trail,
    metadata: dict[str, Any] | None = None,
    background_tasks: list[asyncio.Task[Any]] | None = None,
    changes: dict[str, Any] | None = None,
) -> PluginResult[Any]:
    """The result of a call: everything allowed and unchanged but for `changes`, a dict of the result's fields."""
    values = _NOTHING_HAPPENED.copy()
    values[PENDING] = trail
    if metadata is not None:
        values["metadata"] = metadata
    if background_tasks is not None:
        values["background_tasks"] = background_tasks
    if changes is not None:
        values.update(changes)
    result: PluginResult[Any] = _new(PluginResult)
    set_raw_dict(result, values)
    return result
