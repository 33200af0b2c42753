"""The end of a run: what it came to, as a document and in print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpex.tools.console import plain
from cpex.tools.run.tally import DenialGroup, PluginTally, Tally

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Summary", "print_summary"]

_MOST_ROWS = 12
_ROOMY = 110
"""Columns of a terminal that has room for everything."""
_NS_PER_US = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """A run that has ended."""

    file: str
    config: str
    """`sha256:` digest of the configuration."""
    tally: Tally
    duration_s: float
    """Seconds of real time, start-up of the plugins left out."""
    interrupted: bool
    disabled: tuple[str, ...] = ()
    """Plugins that were switched off because they failed."""
    missing: tuple[str, ...] = ()
    """Plugins that the run began without."""
    refused: int = 0
    """Background tasks that were not started because there were too many."""

    def document(self) -> dict[str, Any]:
        """The summary as JSON values; docs/reference/cli.md lists the keys."""
        tally = self.tally
        return {
            "v": 1,
            "file": self.file,
            "config": self.config,
            "events": tally.events,
            "allowed": tally.allowed,
            "denied": tally.denied,
            "failed": tally.failed,
            "changed": tally.changed,
            "bad_lines": tally.bad_lines,
            "duration_s": round(self.duration_s, 6),
            "interrupted": self.interrupted,
            "plugins": [_plugin(each) for each in tally.plugins.values()],
            "denials": [_denial(each) for each in _by_count(tally.denials.values())],
            "would_be_denials": [_denial(each) for each in _by_count(tally.would_be_denials.values())],
            "failures": [
                {"plugin": plugin or None, "code": code, "message": message, "count": count}
                for (plugin, code, message), count in tally.failures.most_common()
            ],
            "rewritten": _findings(tally.rewritten),
            "found": _findings(tally.findings),
            "disabled_plugins": list(self.disabled),
            "missing_plugins": list(self.missing),
            "background_refused": self.refused,
        }


def _findings(counts: Counter[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"plugin": plugin, "kind": kind, "label": label, "count": count}
        for (plugin, kind, label), count in counts.most_common()
    ]


def _plugin(tally: PluginTally) -> dict[str, Any]:
    return {
        "plugin": tally.plugin,
        "hook": tally.hook,
        "mode": tally.mode,
        "calls": tally.calls,
        "denials": tally.denials,
        "would_be_denials": tally.would_be_denials,
        "changes": tally.changes,
        "errors": tally.errors,
        "p50_us": _microseconds(tally.durations.quantile(0.5)),
        "p99_us": _microseconds(tally.durations.quantile(0.99)),
    }


def _denial(group: DenialGroup) -> dict[str, Any]:
    return {
        "plugin": group.plugin,
        "code": group.code,
        "reason": group.reason,
        "count": group.count,
        "first_event": group.first_event,
        "subjects": list(group.subjects),
    }


def _by_count(groups: Iterable[DenialGroup]) -> list[DenialGroup]:
    return sorted(groups, key=lambda group: (-group.count, group.first_event))


def _microseconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / _NS_PER_US, 1)


def print_summary(summary: Summary, console: Console) -> None:
    """Print who was denied, what was changed and found, and how long each plugin took."""
    tally = summary.tally
    _print_headline(summary, console)
    tables = [
        _denial_table("Denied", _by_count(tally.denials.values())),
        _denial_table("Would have been denied", _by_count(tally.would_be_denials.values())),
        _findings_table("Redacted or rewritten", tally.rewritten),
        _findings_table("Found", tally.findings),
        _failure_table(tally),
        _plugin_table(tally, console.width),
    ]
    for table in tables:
        if table.row_count:
            console.print()
            console.print(table)
    _print_notes(summary, console)


def _print_headline(summary: Summary, console: Console) -> None:
    tally = summary.tally
    rate = f", {tally.events / summary.duration_s:,.0f} a second" if tally.events and summary.duration_s > 0 else ""
    until = " until it was interrupted" if summary.interrupted else ""
    console.print(
        plain(summary.file), f" · {_number(tally.events, 'event')} in {summary.duration_s:.2f} s{rate}{until}", sep=""
    )
    parts = [
        (f"{tally.allowed:,} allowed", "green"),
        (f"{tally.changed:,} changed", "yellow" if tally.changed else "dim"),
        (f"{tally.denied:,} denied", "bold red" if tally.denied else "dim"),
        (f"{tally.failed:,} failed", "bold red" if tally.failed else "dim"),
    ]
    if tally.bad_lines:
        parts.append((_number(tally.bad_lines, "bad line"), "bold red"))
    from rich.text import Text

    console.print(Text(" · ").join(Text(text, style) for text, style in parts))


def _print_notes(summary: Summary, console: Console) -> None:
    notes = [f"plugin `{name}` was switched off after it failed" for name in summary.disabled]
    notes += [f"plugin `{name}` did not start, and the run went on without it" for name in summary.missing]
    if summary.refused:
        notes.append(f"{summary.refused:,} background tasks were refused; raise `background_limit`")
    if notes:
        console.print()
    for note in notes:
        console.print("note: ", plain(note), sep="", style="yellow")


def _table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        # Names without blanks are cut where a terminal is narrow, sentences are wrapped.
        table.add_column(name, overflow="ellipsis")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    return table


def _denial_table(title: str, groups: list[DenialGroup]) -> Table:
    table = _table(title, "plugin", "why", "at", numbers=("events", "first in line"))
    for group in groups[:_MOST_ROWS]:
        subjects = ", ".join(group.subjects)
        table.add_row(
            plain(group.plugin), plain(group.reason), plain(subjects), f"{group.count:,}", f"{group.first_event:,}"
        )
    _add_rest(table, len(groups), sum(group.count for group in groups[_MOST_ROWS:]))
    return table


def _findings_table(title: str, counts: Counter[tuple[str, str, str]]) -> Table:
    table = _table(title, "plugin", "what", "how many")
    by_kind: dict[tuple[str, str], list[str]] = {}
    for (plugin, kind, label), count in counts.most_common():
        by_kind.setdefault((plugin, kind), []).append(f"{label} {count:,}")
    for (plugin, kind), labels in list(by_kind.items())[:_MOST_ROWS]:
        table.add_row(plain(plugin), plain(kind), plain(" · ".join(labels), limit=400))
    _add_rest(table, len(by_kind))
    return table


def _failure_table(tally: Tally) -> Table:
    table = _table("Failed", "plugin", "code", "message", numbers=("events",))
    for (plugin, code, message), count in tally.failures.most_common(_MOST_ROWS):
        table.add_row(plain(plugin), plain(code), plain(message), f"{count:,}")
    _add_rest(table, len(tally.failures), sum(count for _, count in tally.failures.most_common()[_MOST_ROWS:]))
    return table


def _plugin_table(tally: Tally, width: int) -> Table:
    numbers = ("calls", "denied", "would deny", "changed", "errors", "p50", "p99")
    rows = list(tally.plugins.values())
    if width >= _ROOMY:
        table = _table("Plugins", "plugin", "hook", "mode", numbers=numbers)
        for each in rows:
            table.add_row(plain(each.plugin), plain(each.hook), each.mode, *_numbers(each))
        return table
    table = _table("Plugins", "hook and plugin", numbers=numbers)
    for hook in dict.fromkeys(each.hook for each in rows):
        table.add_row(plain(hook), style="bold")
        for each in rows:
            if each.hook == hook:
                table.add_row(plain(f"  {each.plugin}"), *_numbers(each))
    return table


def _numbers(tally: PluginTally) -> list[str]:
    counts = (tally.calls, tally.denials, tally.would_be_denials, tally.changes, tally.errors)
    durations = (tally.durations.quantile(0.5), tally.durations.quantile(0.99))
    return [f"{count:,}" if count else "-" for count in counts] + [_duration(each) for each in durations]


def _add_rest(table: Table, rows: int, count: int | None = None) -> None:
    if rows > _MOST_ROWS:
        cells = ["", f"and {rows - _MOST_ROWS} more"]
        cells += [""] * (len(table.columns) - len(cells))
        if count is not None:
            cells[3] = f"{count:,}"
        table.add_row(*cells)


def _duration(nanoseconds: float | None) -> str:
    if nanoseconds is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.1f} {unit}"
    return f"{nanoseconds / _NS_PER_US:.0f} µs" if nanoseconds >= 10_000 else f"{nanoseconds / _NS_PER_US:.1f} µs"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
