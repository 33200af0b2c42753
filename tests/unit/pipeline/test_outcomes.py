"""What becomes of a hook call, for everything that a plugin can do, in every mode, under every failure rule.

`TABLE` is the whole truth: the tests read it, and `docs/reference/outcomes.md` is made of it.
"""

# The lines of the table are wider than a line of code may be: it is read across.
# ruff: noqa: E501

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import SpanLog, allow, denial, manager_of, never, other_tasks, plugin, record_of, tool_payload

from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginResult, PluginViolation
from cpex.framework.observability import current_trace_id

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")
RULES = ("fail", "ignore", "disable")
EVENTS = (
    "allows",
    "denies",
    "raises",
    "raises PluginViolationError",
    "raises it in a task group",
    "raises TimeoutError",
    "times out",
    "is cancelled",
    "edits in place",
    "returns None",
    "returns a foreign type",
)

# What the plugin does and the columns after it; `-` is None. Short words stand for groups (see GROUPS).
TABLE = """
the plugin                  | mode                 | on_error    | the call       | status    | requested | effective | matched | applied | modified | error_code       | span
allows                      | waited for           | any         | goes on        | completed | yes       | yes       | no      | no      | no       | -                | ok
allows                      | fire_and_forget      | any         | goes on        | completed | -         | yes       | -       | no      | no       | -                | ok

denies                      | blocking             | any         | is denied      | completed | no        | no        | yes     | yes     | no       | NO               | ok
denies                      | transform, audit     | any         | goes on        | completed | no        | yes       | yes     | no      | no       | NO               | ok
denies                      | fire_and_forget      | any         | goes on        | completed | -         | yes       | -       | no      | no       | -                | ok

raises a denial             | blocking             | any         | is denied      | completed | no        | no        | yes     | yes     | no       | NO               | error
raises a denial             | transform, audit     | any         | goes on        | completed | no        | yes       | yes     | no      | no       | NO               | error
raises a denial             | fire_and_forget      | any         | goes on        | completed | -         | yes       | -       | no      | no       | -                | error

breaks                      | may stop the call    | fail        | fails          | error     | -         | no        | -       | yes     | no       | plugin_error     | error
breaks                      | may stop the call    | ignore      | goes on        | error     | -         | yes       | -       | no      | no       | plugin_error     | error
breaks                      | may stop the call    | disable     | goes on, off   | error     | -         | yes       | -       | no      | no       | plugin_error     | error
breaks                      | only watches         | fail        | goes on        | error     | -         | yes       | -       | no      | no       | plugin_error     | error
breaks                      | only watches         | ignore      | goes on        | error     | -         | yes       | -       | no      | no       | plugin_error     | error
breaks                      | only watches         | disable     | goes on, off   | error     | -         | yes       | -       | no      | no       | plugin_error     | error

times out                   | may stop the call    | fail        | fails          | timeout   | -         | no        | -       | yes     | no       | plugin_timeout   | error
times out                   | sequential           | ignore      | goes on        | timeout   | -         | yes       | -       | yes     | no       | plugin_timeout   | error
times out                   | sequential           | disable     | goes on, off   | timeout   | -         | yes       | -       | yes     | no       | plugin_timeout   | error
times out                   | transform, concurrent| ignore      | goes on        | timeout   | -         | yes       | -       | no      | no       | plugin_timeout   | error
times out                   | transform, concurrent| disable     | goes on, off   | timeout   | -         | yes       | -       | no      | no       | plugin_timeout   | error
times out                   | only watches         | fail        | goes on        | timeout   | -         | yes       | -       | no      | no       | plugin_timeout   | error
times out                   | only watches         | ignore      | goes on        | timeout   | -         | yes       | -       | no      | no       | plugin_timeout   | error
times out                   | only watches         | disable     | goes on, off   | timeout   | -         | yes       | -       | no      | no       | plugin_timeout   | error

is cancelled                | waited for           | any         | is cancelled   | cancelled | -         | no        | -       | no      | no       | -                | error
is cancelled                | fire_and_forget      | any         | goes on        | cancelled | -         | yes       | -       | no      | no       | -                | error

edits in place              | sequential, transform| any         | goes on        | completed | yes       | yes       | yes     | yes     | yes      | -                | ok
edits in place              | audit, concurrent    | any         | goes on        | completed | yes       | yes       | no      | no      | no       | -                | ok
edits in place              | fire_and_forget      | any         | goes on        | completed | -         | yes       | -       | no      | no       | -                | ok
"""

GROUPS = {
    "raises a denial": ("raises PluginViolationError", "raises it in a task group"),
    "breaks": ("raises", "raises TimeoutError", "returns None", "returns a foreign type"),
    "waited for": ("sequential", "transform", "audit", "concurrent"),
    "blocking": ("sequential", "concurrent"),
    "may stop the call": ("sequential", "transform", "concurrent"),
    "only watches": ("audit", "fire_and_forget"),
    "any": RULES,
}
WORDS: dict[str, bool | None] = {"yes": True, "no": False, "-": None}
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "outcomes.md"
REGENERATE = "PYTHONPATH=tests python tests/unit/pipeline/test_outcomes.py"


@dataclass(frozen=True)
class Cell:
    """One combination and what is expected of it."""

    event: str
    mode: str
    rule: str
    outcome: str
    status: str
    requested: bool | None
    effective: bool | None
    matched: bool | None
    applied: bool | None
    modified: bool | None
    error_code: str | None
    span: str

    def __str__(self) -> str:
        return f"{self.mode}-{self.rule}-{self.event}".replace(" ", "_")


def rows() -> Iterator[list[str]]:
    """The cells of the table's lines, the headings first."""
    for line in TABLE.splitlines():
        if line:
            yield [cell.strip() for cell in line.split("|")]


def members(group: str) -> tuple[str, ...]:
    """The words that a cell of the first three columns stands for."""
    return GROUPS.get(group) or tuple(group.split(", "))


def cells() -> Iterator[Cell]:
    """Every line of the table, written out."""
    for events, modes, rules, outcome, status, *facts, code, span in itertools.islice(rows(), 1, None):
        for event, mode, rule in itertools.product(members(events), members(modes), members(rules)):
            error_code = None if code == "-" else code
            yield Cell(event, mode, rule, outcome, status, *(WORDS[fact] for fact in facts), error_code, span)


CELLS = list(cells())


async def raises(payload: Any, context: Any) -> PluginResult[Any]:
    raise RuntimeError("broken")


async def violates(payload: Any, context: Any) -> PluginResult[Any]:
    raise PluginViolationError("no", PluginViolation(reason="because", description="it is so", code="NO"))


async def violates_in_a_group(payload: Any, context: Any) -> PluginResult[Any]:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(never(payload, context))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(violates(payload, context))
            inner.create_task(raises(payload, context))
    raise AssertionError("the groups raise")


async def raises_timeout(payload: Any, context: Any) -> PluginResult[Any]:
    raise TimeoutError("of its own")


async def edits(payload: Any, context: Any) -> PluginResult[Any]:
    payload.args["x"]["y"] = 2
    payload.args["new"] = [1]
    return PluginResult(modified_payload=payload)


async def denies(payload: Any, context: Any) -> PluginResult[Any]:
    return denial()


async def returns_none(payload: Any, context: Any) -> Any:
    return None


async def returns_a_dict(payload: Any, context: Any) -> Any:
    return {"continue_processing": False}


HANDLERS: dict[str, Callable[..., Awaitable[Any]]] = {
    "allows": allow,
    "denies": denies,
    "raises": raises,
    "raises PluginViolationError": violates,
    "raises it in a task group": violates_in_a_group,
    "raises TimeoutError": raises_timeout,
    "times out": never,
    "is cancelled": never,
    "edits in place": edits,
    "returns None": returns_none,
    "returns a foreign type": returns_a_dict,
}


def suspending(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same handler, after a turn of the event loop."""

    async def later(payload: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        return await handler(payload, context)

    return later


def test_the_table_has_every_combination_exactly_once() -> None:
    listed = sorted((cell.event, cell.mode, cell.rule) for cell in CELLS)
    assert listed == sorted(itertools.product(EVENTS, MODES, RULES))


@pytest.mark.conformance("D7", "D7a", "D7b", "D8", "D9", "D12", "D20")
@pytest.mark.parametrize("neighbours", [0, 2], ids=["alone", "with_neighbours"])
@pytest.mark.parametrize("suspends", [False, True], ids=["at_once", "suspending"])
@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_outcome(cell: Cell, suspends: bool, neighbours: int) -> None:
    handler = HANDLERS[cell.event]
    running = asyncio.Event()

    async def announced(payload: Any, context: Any) -> Any:
        running.set()
        return await (suspending(handler) if suspends else handler)(payload, context)

    spans = SpanLog()
    timeout_s = 0.02 if cell.event == "times out" else None
    tested = plugin(announced, mode=cell.mode, on_error=cell.rule, timeout_s=timeout_s)
    # Behind it by priority: a denial must keep them out, whatever they would have said.
    others = [plugin(allow, f"other{n}", mode=cell.mode, priority=200) for n in range(neighbours)]
    manager = manager_of(tested, *others, observability=spans)
    payload = tool_payload()
    current_trace_id.set("trace")
    host = asyncio.create_task(manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r")))
    if cell.event == "is cancelled" and cell.mode != "fire_and_forget":
        await running.wait()
        host.cancel()
    result, executions = await end_of(host, cell)
    if result is not None and result.background_tasks:
        await running.wait()
        if cell.event == "is cancelled":
            result.background_tasks[0].cancel()
        await result.wait_for_background_tasks()

    if executions is not None:
        assert_record(record_of(executions), cell)
    assert payload == tool_payload()
    if result is not None:
        assert (result.modified_payload is not None) is cell.modified
        if cell.modified:
            assert result.modified_payload.args == {"x": {"y": 2}, "new": [1]}
    assert manager.disabled_plugins == ({"p"} if cell.outcome == "goes on, off" else set())
    assert spans.open() == []
    assert spans.end_of("plugin.execute.p")["status"] == cell.span
    assert spans.end_of("plugin.hook.invoke")["status"] == ("error" if result is None else "ok")
    await asyncio.wait_for(manager.shutdown(), 60)
    assert other_tasks() == set()


async def end_of(
    host: asyncio.Task[Any], cell: Cell
) -> tuple[PluginResult[Any] | None, list[ControlExecutionRecord] | None]:
    """The call's result, if it has one, and the records of what happened, if there is anybody to tell."""
    if cell.outcome == "is cancelled":
        with pytest.raises(asyncio.CancelledError):
            await host
        return None, None
    if cell.outcome == "fails":
        with pytest.raises(PluginError) as caught:
            await host
        assert caught.value.error.plugin_name == "p"
        return None, caught.value.executions
    result, table = await host
    assert table
    assert result.continue_processing is (cell.outcome != "is denied")
    assert (result.violation is not None) is (cell.outcome == "is denied")
    return result, result.executions


def assert_record(record: ControlExecutionRecord, cell: Cell) -> None:
    assert (record.plugin_name, record.mode, record.status) == ("p", cell.mode, cell.status)
    facts = (record.requested_allow, record.effective_allow, record.matched, record.applied, record.payload_modified)
    assert facts == (cell.requested, cell.effective, cell.matched, cell.applied, cell.modified)
    assert record.error_code == cell.error_code
    assert record.pending is False


CANCELLED = [cell for cell in CELLS if cell.outcome == "is cancelled"]


@pytest.mark.parametrize("neighbours", [0, 2], ids=["alone", "with_neighbours"])
@pytest.mark.parametrize("cell", CANCELLED, ids=str)
async def test_a_cancelled_call_shows_its_record_to_those_who_watch(cell: Cell, neighbours: int) -> None:
    """The host that cancels gets no records; a plugin with `hook_completed` does."""
    running = asyncio.Event()
    outcomes: list[HookOutcome] = []

    async def waits(payload: Any, context: Any) -> Any:
        if running.is_set():
            # A transform runs again, in the background, so that the payload of the outcome is redacted.
            return await allow(payload, context)
        running.set()
        return await never(payload, context)

    async def completed(outcome: HookOutcome) -> None:
        outcomes.append(outcome)

    tested = plugin(waits, mode=cell.mode, on_error=cell.rule)
    tested.hook_completed = completed
    other = never if cell.mode == "concurrent" else allow
    manager = manager_of(tested, *(plugin(other, f"other{n}", mode=cell.mode) for n in range(neighbours)))
    host = asyncio.create_task(manager.invoke_hook("tool_pre_invoke", tool_payload(), GlobalContext(request_id="r")))
    await running.wait()
    host.cancel()
    with pytest.raises(asyncio.CancelledError):
        await host
    await manager.shutdown()
    assert_record(record_of(outcomes[0].executions), cell)
    assert (outcomes[0].allowed, outcomes[0].error_code) == (False, "cancelled")


INTRODUCTION = f"""# Outcomes

What becomes of a hook call, for everything that a plugin can do, by the plugin's `mode` and `on_error`. The columns
after the call are fields of the plugin's record in `executions` (`requested_allow`, `effective_allow` and so on) and
the status of its span; `-` is `None`. Whatever happens, the host's payload stays as it was, no task is left running
once background plugins have ended, and every span is closed once.

- *any*: the column makes no difference there.
- *fails*: the host sees a `PluginError`; its `executions` holds the records.
- *is denied*: `continue_processing` is false, or a `PluginViolationError` when the host asked for that.
- *goes on, off*: the call goes on, and the plugin is switched off until it is enabled again.
- *is cancelled*: by the host, while the plugin runs; a background plugin, when its own task is cancelled.

This page is generated: `{REGENERATE}`
"""
PROSE = {
    "breaks": ", ".join(GROUPS["breaks"]),
    "raises a denial": ", ".join(GROUPS["raises a denial"]),
    "waited for": "sequential, transform, audit, concurrent",
    "blocking": "sequential, concurrent",
    "may stop the call": "sequential, transform, concurrent",
    "only watches": "audit, fire_and_forget",
}


def page() -> str:
    """The reference page, made of the table."""
    headings, *lines = rows()
    table = [headings, ["---"] * len(headings), *([PROSE.get(cell, cell) for cell in line] for line in lines)]
    return INTRODUCTION + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"run: {REGENERATE}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
