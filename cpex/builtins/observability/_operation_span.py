"""The span of one operation, and below it those of its hook calls and of the plugins in them.

The span is made when the first decision is known, because only then it is known when the call began. What happens
before is kept. Spans of plugins are made from the framework's records: their lengths were measured, their starts follow
from the order in which phases run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cpex.builtins.observability._events import outcome_of
from cpex.builtins.observability._span import time_ns
from cpex.builtins.observability._tracing import CHAIN_SPAN, PLUGIN_SPAN, TracerSource, present, set_error
from cpex.framework import ControlExecutionRecord, ControlExecutionStatus, PluginMode
from cpex.framework.models import HookOutcome

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

MAX_PENDING = 10_000
"""How many turns of background plugins are watched at once."""

_RAN = frozenset({ControlExecutionStatus.COMPLETED, ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT})
_FAILED = frozenset({ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT})


@dataclass(eq=False, slots=True)
class OperationSpan:
    """One operation, before and after it has a span."""

    name: str
    parent: Context
    first_seen_ns: int
    """Nanoseconds since the epoch; the operation began no later."""
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any], int]] = field(default_factory=list)
    span: Span | None = None

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Add what is known now."""
        self.attributes |= attributes
        if self.span is not None:
            self.span.set_attributes(attributes)

    def add_event(self, name: str, attributes: dict[str, Any]) -> None:
        """Note something at this moment."""
        if self.span is not None:
            self.span.add_event(name, attributes, timestamp=time_ns())
        else:
            self.events.append((name, attributes, time_ns()))

    def made(self, source: TracerSource, began_ns: int | None = None) -> Span:
        """The span; made now unless there is one."""
        if self.span is None:
            start = min(self.first_seen_ns, began_ns or self.first_seen_ns)
            self.span = source.get().start_span(
                self.name, context=self.parent, attributes=self.attributes, start_time=start
            )
            for name, attributes, moment in self.events:
                self.span.add_event(name, attributes, timestamp=moment)
            self.events.clear()
        return self.span


@dataclass(frozen=True, slots=True)
class _Turn:
    """A background plugin's turn that has not ended, or not been looked at since."""

    record: ControlExecutionRecord
    parent: Context
    start_ns: int


class HookSpans:
    """Makes the spans of decided hook calls. Those of background plugins follow when their turns have ended."""

    def __init__(self, source: TracerSource, own_name: str) -> None:
        """Leave the plugin of that name out: that a tracer ran is no news."""
        self._source = source
        self._own_name = own_name
        self._pending: deque[_Turn] = deque()

    def add(self, operation: Span, outcome: HookOutcome, began_ns: int, decided_ns: int) -> None:
        """Make the span of one call, and of the plugins in it, below that of its operation.

        Args:
            began_ns, decided_ns: Nanoseconds since the epoch.
        """
        from opentelemetry import trace

        tracer = self._source.get()
        attributes = {
            "plugin.hook.type": outcome.hook,
            "plugin.chain.length": len(outcome.executions),
            "plugin.chain.stopped": outcome.violation is not None,
            "plugin.chain.stopped_by": outcome.violation.plugin_name if outcome.violation is not None else None,
            "cpex.outcome": outcome_of(outcome),
        }
        chain = tracer.start_span(
            CHAIN_SPAN,
            context=trace.set_span_in_context(operation),
            attributes=present(attributes),
            start_time=began_ns,
        )
        below = trace.set_span_in_context(chain)
        for record, start in _placed(outcome.executions, began_ns, decided_ns):
            if record.plugin_name == self._own_name:
                continue
            turn = _Turn(record, below, start)
            if record.pending:
                self._wait_for(turn)
            else:
                self._make(turn)
        if not outcome.allowed:
            set_error(chain, outcome_of(outcome))
        chain.end(end_time=decided_ns)

    def settle(self, *, final: bool = False) -> None:
        """Make the spans of background turns that have ended since; `final` gives up on the others."""
        for _ in range(len(self._pending)):
            turn = self._pending.popleft()
            if turn.record.pending:
                if not final:
                    self._pending.append(turn)
            else:
                self._make(turn)

    def _wait_for(self, turn: _Turn) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
        self._pending.append(turn)

    def _make(self, turn: _Turn) -> None:
        record = turn.record
        if record.status not in _RAN:
            return
        attributes = {
            "plugin.name": record.plugin_name,
            "plugin.uuid": record.plugin_id,
            "plugin.mode": str(record.mode),
            "plugin.status": str(record.status),
            "plugin.had_violation": record.requested_allow is False,
            "plugin.modified_payload": record.payload_modified,
            "cpex.effective_allow": record.effective_allow,
            "error.type": record.error_code,
        }
        span = self._source.get().start_span(
            f"{PLUGIN_SPAN}.{record.plugin_name}",
            context=turn.parent,
            attributes=present(attributes),
            start_time=turn.start_ns,
        )
        if record.status in _FAILED:
            set_error(span, str(record.status))
        span.end(end_time=turn.start_ns + record.duration_ns)


def _placed(
    records: list[ControlExecutionRecord], began_ns: int, decided_ns: int
) -> Iterator[tuple[ControlExecutionRecord, int]]:
    """Records with the moments at which their turns began: one after another, then side by side, then the rest."""
    moment = began_ns
    for record in records:
        if record.mode is PluginMode.FIRE_AND_FORGET:
            yield record, decided_ns
        elif record.mode is PluginMode.CONCURRENT:
            # All began together, when the last of the serial plugins had ended.
            yield record, moment
        else:
            yield record, moment
            moment += record.duration_ns
