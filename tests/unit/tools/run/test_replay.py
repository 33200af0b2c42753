from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cpex.framework.manager import TenantPluginManager
from cpex.tools.events import Decision
from cpex.tools.run import replay
from cpex.tools.run.lines import Line
from cpex.tools.run.replay import MAX_HELD, Replay

GUARD = """\
plugin_dirs: [.]
plugins:
  - {name: guard, kind: t_plugins.Guard, hooks: [tool_pre_invoke, tool_post_invoke], capabilities: [read_agent]}
"""
WATCHER = """\
plugin_dirs: [.]
plugins:
  - name: watcher
    kind: t_plugins.Watcher
    mode: fire_and_forget
    hooks: [tool_pre_invoke]
    timeout_s: 600
    config: {wait: %s}
"""
MAILER = """\
plugin_dirs: [.]
plugins:
  - {name: other, kind: t_plugins.Guard, hooks: [tool_pre_invoke]}
  - {name: mailer, kind: t_plugins.Mailer, hooks: [mail_pre_send, mail_pre_queue]}
"""


def call(name: str, **keys: Any) -> dict[str, Any]:
    return {"hook": "tool_pre_invoke", "payload": {"name": name, "args": {"card": "4111"}}, **keys}


async def lines(events: Iterable[Any]) -> AsyncIterator[Line]:
    for number, event in enumerate(events, 1):
        yield Line(number, event if isinstance(event, bytes) else json.dumps(event).encode(), number)


class Bench:
    """A manager, a replay over it, and all that it tells."""

    def __init__(self, manager: TenantPluginManager, **options: Any) -> None:
        self.manager = manager
        self.decisions: list[Decision] = []
        self.faults: list[str] = []
        self.warnings: list[str] = []
        self.replay = Replay(
            manager,
            "e.jsonl",
            on_decision=self.decisions.append,
            on_fault=lambda fault: self.faults.append(fault.render()),
            on_warning=lambda fault: self.warnings.append(fault.render()),
            **options,
        )

    def plugin(self, name: str) -> Any:
        return self.manager.get_plugin(name)


@asynccontextmanager
async def bench(folder: Path, config: str, **options: Any) -> AsyncIterator[Bench]:
    (folder / "c.yaml").write_text(config)
    manager = TenantPluginManager("c.yaml")
    await manager.initialize()
    try:
        yield Bench(manager, **options)
    finally:
        await manager.shutdown()


async def test_every_event_gets_one_decision_in_order(plugins: Path) -> None:
    events = [call("ok"), call("deny"), call("redact"), call("crash")]
    async with bench(plugins, GUARD) as each:
        assert await each.replay.run(lines(events))
        ok, denied, redacted, crashed = each.decisions
    assert (ok.allowed, ok.changes, ok.violation, ok.error) == (True, [], None, None)
    assert not denied.allowed
    assert denied.violation is not None
    assert (denied.violation.plugin_name, denied.violation.code) == ("guard", "NOT_THIS")
    assert redacted.changes == [{"op": "replace", "path": "/args/card", "value": "[CARD]"}]
    assert not crashed.allowed
    assert crashed.error is not None
    assert (crashed.error.plugin_name, crashed.error.message) == ("guard", "RuntimeError('boom')")
    assert [record.status for record in crashed.executions] == ["error"]


async def test_what_was_removed_is_kept_on_request(plugins: Path) -> None:
    async with bench(plugins, GUARD, show_removed=True) as each:
        await each.replay.run(lines([call("redact")]))
        assert each.decisions[0].changes[0]["removed"] == "4111"


async def test_contexts_flow_from_pre_to_post_of_a_request_and_no_further(plugins: Path) -> None:
    context = {"request_id": "r1"}
    post = {"hook": "tool_post_invoke", "payload": {"name": "ok", "result": 1}, "context": context}
    async with bench(plugins, GUARD) as each:
        await each.replay.run(lines([call("ok", context=context), call("other"), post, post]))
        states = [seen["state"] for seen in each.plugin("guard").seen]
    assert states == [{}, {}, {"began": "ok"}, {}]


async def test_a_session_reaches_plugins_in_both_places(plugins: Path) -> None:
    extensions = {"agent": {"agent_id": "a", "session_id": "another"}}
    async with bench(plugins, GUARD) as each:
        await each.replay.run(lines([call("ok", session="s1"), call("ok", session="s2", extensions=extensions)]))
        seen = each.plugin("guard").seen
    assert [(one["session"], one["agent_session"]) for one in seen] == [("s1", "s1"), ("s2", "s2")]


async def test_plugins_that_ask_for_the_time_get_that_of_the_event(plugins: Path) -> None:
    async with bench(plugins, GUARD) as each:
        await each.replay.run(
            lines([call("ok", ts="2020-02-02T02:02:02Z"), call("ok", ts="2020-02-03T02:02:02+02:00")])
        )
        times = [seen["time"] for seen in each.plugin("guard").seen]
    assert times == ["2020-02-02T02:02:02+00:00", "2020-02-03T00:02:02+00:00"]


async def test_bad_lines_are_told_and_do_not_stop_the_rest(plugins: Path) -> None:
    bad = [
        b"{",
        {"hook": "tool_pre_invok", "payload": {}},
        {"hook": "tool_pre_invoke", "payload": {"name": ["secret"], "args": 5}},
        call("ok", context={"request_id": 7}),
        call("ok", extensions={"agent": {"turn": "secret"}}),
    ]
    async with bench(plugins, GUARD) as each:
        await each.replay.run(lines([*bad, b"   ", call("ok")]))
        assert [decision.event.line for decision in each.decisions] == [7]
    summaries = [fault.splitlines()[0] for fault in each.faults]
    assert summaries == [
        "error: line 1: no valid JSON: expecting property name enclosed in double quotes [event-json]",
        "error: line 2: unknown hook `tool_pre_invok` [event-unknown-hook]",
        "error: line 3: `payload.name`: input should be a valid string;"
        " `payload.args`: input should be a valid dictionary [event-payload]",
        "error: line 4: `context.request_id`: input should be a valid string [event-context]",
        "error: line 5: `extensions.agent.turn`: input should be a valid integer, unable to parse string as an integer"
        " [event-extensions]",
    ]
    assert "did you mean `tool_pre_invoke`?" in each.faults[1]
    assert all(f"\n  at e.jsonl:{number}" in fault for number, fault in enumerate(each.faults, 1))
    assert not any("secret" in fault for fault in each.faults)


async def test_a_payload_key_that_nothing_reads_is_named_once_and_the_event_is_judged(plugins: Path) -> None:
    misspelt = {"hook": "tool_pre_invoke", "payload": {"name": "ok", "arguments": {"card": "secret"}}}
    async with bench(plugins, GUARD) as each:
        await each.replay.run(lines([call("ok"), misspelt, misspelt]))
        assert [decision.allowed for decision in each.decisions] == [True, True, True]
    assert each.faults == []
    assert each.warnings == [
        "error: line 2: the payload of `tool_pre_invoke` has no `arguments`, so what stands there is not judged"
        " [event-payload-key]\n"
        "  at e.jsonl:2\n"
        "  help: did you mean `args`? known: name, args, headers"
    ]


async def test_a_fact_about_the_request_that_nothing_reads_is_named_once(plugins: Path) -> None:
    """Dropped in silence, it would be judged as a request of nobody's."""
    misspelt = {**call("ok"), "context": {"tenant": "secret"}, "extensions": {"secrity": {"labels": ["secret"]}}}
    async with bench(plugins, GUARD) as each:
        await each.replay.run(lines([misspelt, misspelt]))
        assert len(each.decisions) == 2
    assert [warning.splitlines()[0] for warning in each.warnings] == [
        "error: line 1: the context has no `tenant`, so what stands there is not judged [event-context-key]",
        "error: line 1: the extensions have no `secrity`, so what stands there is not judged [event-extensions-key]",
    ]
    assert "did you mean `tenant_id`?" in each.warnings[0]
    assert "did you mean `security`?" in each.warnings[1]


async def test_a_payload_of_free_attributes_reads_every_key(plugins: Path) -> None:
    async with bench(plugins, MAILER) as each:
        await each.replay.run(lines([{"hook": "mail_pre_send", "payload": {"anything": 1}}]))
        assert (len(each.decisions), each.warnings) == (1, [])


async def test_a_line_over_the_limit_is_a_bad_one(plugins: Path) -> None:
    async def one_long_line() -> AsyncIterator[Line]:
        yield Line(1, None, 1)

    async with bench(plugins, GUARD) as each:
        assert await each.replay.run(one_long_line())
    assert each.faults == [
        "error: line 1: longer than 64,000,000 bytes [event-too-long]\n  at e.jsonl:1\n  help: write one event per line"
    ]


async def test_a_payload_over_the_byte_budget_fails_that_event(plugins: Path) -> None:
    async with bench(plugins, GUARD + "max_payload_bytes: 100\n") as each:
        await each.replay.run(lines([call("x" * 200), call("ok")]))
    first, second = each.decisions
    assert first.error is not None
    assert (first.error.code, first.allowed, second.allowed) == ("payload_too_large", False, True)


async def test_hooks_of_a_plugins_own_are_judged_with_its_class_or_with_free_attributes(plugins: Path) -> None:
    events = [
        {"hook": "mail_pre_queue", "payload": {"subject": "hi"}},
        {"hook": "mail_pre_queue", "payload": {}},
        {"hook": "mail_pre_send", "payload": {"subject": "hi", "to": ["ada"]}},
    ]
    async with bench(plugins, MAILER) as each:
        await each.replay.run(lines(events))
        queued, sent = each.plugin("mailer").seen
    assert (type(queued).__name__, queued.subject) == ("Mail", "hi")
    assert (sent.subject, sent.to) == ("hi", ["ada"])
    assert each.faults[0].startswith("error: line 2: `payload.subject`: field required [event-payload]")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Background plugins that are no slow ones are never taken for such, however busy the machine is."""
    # It is no setting.
    monkeypatch.setattr(replay, "PATIENCE_S", 60)


@pytest.mark.usefixtures("patient")
async def test_an_event_is_judged_after_the_background_work_of_the_one_before(plugins: Path) -> None:
    async def watched() -> AsyncIterator[Line]:
        async for line in lines([call("a", context={"request_id": "1"}), call("b", context={"request_id": "2"})]):
            assert each.plugin("watcher").done == line.number - 1
            assert len(each.plugin("watcher").told) == line.number - 1
            yield line

    async with bench(plugins, WATCHER % "false") as each:
        assert await each.replay.run(watched())
    assert each.plugin("watcher") is None
    assert [record.pending for decision in each.decisions for record in decision.executions] == [False, False]


async def test_decisions_wait_for_slow_background_plugins_in_order_and_bounded_number(plugins: Path) -> None:
    async def stream() -> AsyncIterator[Line]:
        async for line in lines(call("a") for _ in range(MAX_HELD + 1)):
            assert each.decisions == []
            if line.number == MAX_HELD + 1:
                # One more than may be held: from here on the run waits for the plugin.
                each.plugin("watcher").go.set()
            yield line

    async with bench(plugins, WATCHER % "true") as each:
        assert await each.replay.run(stream())
        assert each.plugin("watcher").done == MAX_HELD + 1
    assert [decision.event.line for decision in each.decisions] == list(range(1, MAX_HELD + 2))
    assert {record.status for decision in each.decisions for record in decision.executions} == {"completed"}


@pytest.mark.usefixtures("patient")
async def test_no_background_work_is_refused_for_want_of_room(plugins: Path) -> None:
    async with bench(plugins, WATCHER % "false" + "background_limit: 4\n") as each:
        assert await each.replay.run(lines(call("a") for _ in range(50)))
        assert each.manager.executor.background.refused == 0
        assert each.plugin("watcher").done == 50


@pytest.mark.parametrize("told", [0, 2])
async def test_a_cancelled_run_keeps_what_was_decided(
    plugins: Path, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told:
        # As above: these are not slow.
        monkeypatch.setattr(replay, "PATIENCE_S", 60)
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[Line]:
        async for line in lines([call("a"), call("b")]):
            yield line
        reached.set()
        await asyncio.Event().wait()

    async with bench(plugins, WATCHER % ("true" if told == 0 else "false")) as each:
        task = asyncio.ensure_future(each.replay.run(endless()))
        await reached.wait()
        task.cancel()
        assert await task is False
        assert len(each.decisions) == told
        each.plugin("watcher").go.set()
    each.replay.finish()
    assert [decision.event.line for decision in each.decisions] == [1, 2]
