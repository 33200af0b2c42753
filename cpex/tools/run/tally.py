"""Counts what happened in a run, in memory that does not grow with the stream."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from cpex.framework.conditions import get_matchable_value
from cpex.framework.models.mode import ControlExecutionStatus
from cpex.framework.models.record import ControlExecutionRecord
from cpex.tools.events import Decision

__all__ = ["DenialGroup", "Durations", "PluginTally", "Tally"]

MAX_GROUPS = 500
"""Groups of denials, and labels of findings, that are told apart; what comes later is counted together."""
MAX_SUBJECTS = 3
_PER_OCTAVE = 16
_OTHER = "other"
_NO_REASON = "no reason given"
_DID_NOT_RUN = frozenset({ControlExecutionStatus.SKIPPED, ControlExecutionStatus.DISABLED})
_FAILED = frozenset({ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT})


class Durations:
    """Durations by size class, sixteen to a doubling, so a quantile is off by two per cent at most."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self._count = 0

    def add(self, nanoseconds: int) -> None:
        """Count a duration."""
        self._classes[round(math.log2(max(nanoseconds, 1)) * _PER_OCTAVE)] += 1
        self._count += 1

    def quantile(self, share: float) -> float | None:
        """Nanoseconds that a share (0-1) of the durations does not exceed; `None` when there are none."""
        rank = max(1, math.ceil(share * self._count))
        for size in sorted(self._classes):
            rank -= self._classes[size]
            if rank <= 0:
                return float(2 ** (size / _PER_OCTAVE))
        return None


@dataclass(slots=True)
class PluginTally:
    """One plugin in one hook."""

    plugin: str
    hook: str
    mode: str
    calls: int = 0
    denials: int = 0
    would_be_denials: int = 0
    """Denials in modes that may not deny."""
    changes: int = 0
    """Calls in which it changed the payload or the extensions."""
    errors: int = 0
    """Calls in which it failed or timed out."""
    durations: Durations = field(default_factory=Durations)

    def count(self, record: ControlExecutionRecord) -> None:
        """Count one turn of the plugin; turns that it did not take are left out."""
        if record.status in _DID_NOT_RUN:
            return
        self.calls += 1
        self.durations.add(record.duration_ns)
        self.errors += record.status in _FAILED
        self.changes += record.payload_modified or record.extensions_modified
        if record.requested_allow is False:
            self.would_be_denials += record.effective_allow
            self.denials += not record.effective_allow


@dataclass(slots=True)
class DenialGroup:
    """Denials of one plugin for one reason."""

    plugin: str
    code: str
    reason: str
    first_event: int
    """Line number."""
    count: int = 0
    subjects: dict[str, None] = field(default_factory=dict)
    """Up to three of the tools, prompts, resources or agents that were concerned, or hooks without such."""


class Tally:
    """What a run has come to so far.

    Attributes:
        events: Events that were judged.
        findings: What plugins report to have found, `{(plugin, kind, label): count}`, e.g. personal data by type.
        rewritten: The same for calls in which the plugin changed the payload.
    """

    def __init__(self) -> None:
        self.events = 0
        self.allowed = 0
        self.denied = 0
        self.failed = 0
        self.changed = 0
        """Events whose payload was changed."""
        self.bad_lines = 0
        self.plugins: dict[tuple[str, str], PluginTally] = {}
        self.denials: dict[tuple[str, str, str], DenialGroup] = {}
        self.would_be_denials: dict[tuple[str, str, str], DenialGroup] = {}
        """Of plugins whose mode may not deny; both by plugin, code and reason."""
        self.failures: Counter[tuple[str, str, str]] = Counter()
        """`{(plugin, code, message): count}`."""
        self.findings: Counter[tuple[str, str, str]] = Counter()
        self.rewritten: Counter[tuple[str, str, str]] = Counter()

    def count(self, decision: Decision) -> None:
        """Take a decision in; its background plugins have ended."""
        self.events += 1
        self.allowed += decision.allowed
        self.changed += bool(decision.changes)
        for record in decision.executions:
            turn = record.plugin_name, record.hook_name
            tally = self.plugins.get(turn)
            if tally is None:
                tally = self.plugins[turn] = PluginTally(record.plugin_name, record.hook_name, record.mode.value)
            tally.count(record)
            if record.requested_allow is False and record.effective_allow:
                key = record.plugin_name, record.error_code or "", record.reason or _NO_REASON
                _add_denial(self.would_be_denials, key, decision)
        if decision.error is not None:
            self.failed += 1
            error = decision.error
            self._add(self.failures, (error.plugin_name, error.code or "plugin_error", error.message))
        elif not decision.allowed:
            self.denied += 1
            self._count_denial(decision)
        rewriters = {record.plugin_name for record in decision.executions if record.payload_modified}
        for plugin, report in decision.metadata.items():
            self._count_findings(plugin, report, self.rewritten if plugin in rewriters else self.findings)

    def _count_denial(self, decision: Decision) -> None:
        violation = decision.violation
        denier = next((each for each in decision.executions if not each.effective_allow), None)
        plugin = denier.plugin_name if denier is not None else ""
        key = (plugin, violation.code, violation.reason) if violation is not None else (plugin, "", _NO_REASON)
        _add_denial(self.denials, key, decision)

    def _count_findings(self, plugin: str, report: Any, findings: Counter[tuple[str, str, str]]) -> None:
        """Take in counts that a plugin reports as `{kind: {label: number}}`; anything else is not for the summary."""
        for kind, counts in report.items() if isinstance(report, dict) else ():
            for label, number in counts.items() if isinstance(counts, dict) else ():
                if type(number) is int and number > 0:
                    self._add(findings, (str(plugin), str(kind), str(label)), number)

    @staticmethod
    def _add(counter: Counter[tuple[str, str, str]], key: tuple[str, str, str], number: int = 1) -> None:
        known = key in counter or len(counter) < MAX_GROUPS
        counter[key if known else (_OTHER, "", _OTHER)] += number


def _add_denial(groups: dict[tuple[str, str, str], DenialGroup], key: tuple[str, str, str], decision: Decision) -> None:
    if key not in groups and len(groups) >= MAX_GROUPS:
        key = (_OTHER, "", "other reasons")
    group = groups.get(key)
    if group is None:
        group = groups[key] = DenialGroup(*key, first_event=decision.event.line)
    group.count += 1
    if len(group.subjects) < MAX_SUBJECTS:
        group.subjects.setdefault(_subject(decision))


def _subject(decision: Decision) -> str:
    event = decision.event
    return get_matchable_value(SimpleNamespace(**event.payload), event.hook) or event.hook
