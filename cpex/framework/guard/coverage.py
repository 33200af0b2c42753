"""The coverage ledger: which mandatory hooks ran around each operation of a request, and what follows when one did not.

A hook has run for an operation when at least one plugin came to its end in it. One that no plugin handles, that was
skipped by every condition, or whose plugins all failed, has not.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from cpex.framework.errors import CoverageError
from cpex.framework.guard.operations import KINDS, Kind
from cpex.framework.models.coverage import CoverageConfig, CoverageMode
from cpex.framework.models.mode import ControlExecutionStatus
from cpex.framework.models.record import ControlExecutionRecord

__all__ = ["Coverage", "Ledger", "OperationRecord", "gaps"]

logger = logging.getLogger(__name__)

MAX_RECORDS = 1000
"""Ended operations that a request remembers; of more, the latest."""

gaps: Counter[tuple[str, str]] = Counter()
"""`{(kind, hook): how often}` a mandatory hook was missing in this process, whatever followed. Prometheus has it as
`cpex_coverage_gaps_total`."""

Outcome = Literal["running", "completed", "denied", "failed", "cancelled", "bypassed"]


@dataclass(slots=True)
class OperationRecord:
    """One operation of a request."""

    id: str
    kind: str
    target: str
    """The tool, prompt, resource or agent as the host asked for it; `METHOD path` of an HTTP request."""
    outcome: Outcome = "running"
    hooks: list[str] = field(default_factory=list)
    """Mandatory hooks that have run, in order; all others are not looked at."""
    missing: list[str] = field(default_factory=list)
    """Mandatory hooks that should have run by now and have not."""
    denied_by: str | None = None
    """The hook in which the operation was denied."""
    error: str | None = None
    """Class name of what ended it: the operation's own exception, or one of the guard's."""


class Coverage:
    """What a host demands: the mandatory hooks of each kind of operation."""

    def __init__(self, config: CoverageConfig | None = None) -> None:
        """Sort the mandatory hooks by the operations that they stand around.

        Raises:
            ValueError: No kind of operation has such a hook.
        """
        self.mode = config.mode if config is not None else CoverageMode.OFF
        wanted = frozenset(config.mandatory) if config is not None else frozenset()
        known = {step.hook for kind in KINDS.values() for step in (*kind.before, *kind.after)}
        if unknown := sorted(wanted - known):
            named = ", ".join(f"`{each}`" for each in unknown)
            raise ValueError(
                f"coverage.mandatory names hooks that stand around no operation: {named}; known: "
                f"{', '.join(sorted(known))}"
            )
        self.hooks = wanted if self.mode is not CoverageMode.OFF else frozenset()

    def of(self, kind: Kind) -> bool:
        """Whether anything is mandatory around this kind of operation."""
        return bool(self.hooks) and any(step.hook in self.hooks for step in (*kind.before, *kind.after))


class Ledger:
    """The operations of one request.

    Attributes:
        records: Those that have ended, oldest first, at most `MAX_RECORDS`.
        running: The others, by id.
    """

    def __init__(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self.records: deque[OperationRecord] = deque(maxlen=MAX_RECORDS)
        self.running: dict[str, OperationRecord] = {}

    def begin(self, id: str, kind: str, target: str) -> OperationRecord:
        """Enter an operation."""
        record = self.running[id] = OperationRecord(id, kind, target)
        return record

    def end(self, record: OperationRecord, outcome: Outcome, error: BaseException | None = None) -> None:
        """Note how an operation ended; the first word counts."""
        if self.running.pop(record.id, None) is None:
            return
        record.outcome = outcome
        record.error = type(error).__name__ if error is not None else None
        self.records.append(record)

    def ran(self, record: OperationRecord, hook: str, executions: Iterable[ControlExecutionRecord]) -> None:
        """Note that a mandatory hook was called, if a plugin came to its end in it."""
        if any(each.pending or each.status is ControlExecutionStatus.COMPLETED for each in executions):
            record.hooks.append(hook)

    def check(self, record: OperationRecord, hooks: Iterable[str]) -> None:
        """Raise or alarm if a mandatory one of these hooks has not run.

        Raises:
            CoverageError: One has not, and coverage is `raise`.
        """
        wanted = self.coverage.hooks
        missing = [hook for hook in hooks if hook in wanted and hook not in record.hooks]
        if not missing:
            return
        record.missing.extend(missing)
        for hook in missing:
            gaps[record.kind, hook] += 1
            _counter().labels(record.kind, hook).inc()
        named = ", ".join(f"`{hook}`" for hook in missing)
        text = (
            f"{record.kind} `{record.target[:200]}` went past mandatory hook {named}: no plugin came to its end there; "
            "call it through the guard, and see that a plugin for the hook is configured, applies and does not fail"
        )
        if self.coverage.mode is CoverageMode.RAISE:
            raise CoverageError(text, record.kind, record.target, tuple(missing))
        logger.warning("%s", text)

    def bypassed(self, id: str, kind: Kind, target: str) -> None:
        """Enter an operation that was performed outside of the guard.

        Raises:
            CoverageError: Hooks are mandatory around it, and coverage is `raise`.
        """
        record = self.begin(id, kind.name, target)
        self.end(record, "bypassed")
        self.check(record, (step.hook for step in (*kind.before, *kind.after)))

    def close(self) -> None:
        """Judge the operations that were begun and never ended: what follows them has not run.

        Raises:
            CoverageError: Of the first of them, if coverage is `raise`.
        """
        first: CoverageError | None = None
        for record in list(self.running.values()):
            self.end(record, "bypassed")
            try:
                self.check(record, (step.hook for step in KINDS[record.kind].after))
            except CoverageError as error:
                first = first or error
        if first is not None:
            raise first


@cache
def _counter() -> Any:
    # On first use: a host that is fully covered never needs the client.
    from prometheus_client import Counter as PrometheusCounter

    return PrometheusCounter("cpex_coverage_gaps", "Operations that went past a mandatory hook.", ["kind", "hook"])
