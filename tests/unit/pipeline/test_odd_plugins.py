"""What plugins cannot do to a call, however strangely they answer, fail or end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from support import (
    TOOL,
    Handler,
    Watching,
    allow,
    call,
    denial,
    deny,
    manager_of,
    never,
    other_tasks,
    plugin,
    record_of,
    tool_payload,
)

from cpex.framework.clock import FixedClock, use_clock
from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.hooks.tools import ToolPostInvokePayload
from cpex.framework.models.config import PluginCondition
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.result import PluginResult, PluginViolation

SERIAL = ("sequential", "transform", "audit")
MODES = (*SERIAL, "concurrent", "fire_and_forget")
SHARING = ("sequential", "transform", "concurrent")


class Unreadable(Exception):
    """A failure that cannot even be described."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


class Signal(BaseException):
    """Something that is neither a failure of the usual kind nor one of the interpreter's signals."""


class Unlistable(dict[str, Any]):
    """A dictionary that does not tell what is in it."""

    def items(self) -> Any:
        raise RuntimeError("not yours to know")


async def cancelled_by_nobody(payload: Any, context: Any) -> PluginResult[Any]:
    """Waits for something that somebody else has cancelled."""
    future: asyncio.Future[PluginResult[Any]] = asyncio.get_running_loop().create_future()
    future.cancel()
    return await future


async def signals(payload: Any, context: Any) -> PluginResult[Any]:
    """Raises what is no `Exception`."""
    raise Signal


@pytest.mark.parametrize("mode", MODES)
async def test_a_failure_that_cannot_be_described_is_a_failure_like_any_other(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        raise Unreadable

    manager = manager_of(plugin(handler, mode=mode, on_error="ignore"), plugin(allow, "next", mode=mode))
    result, _ = await call(manager)
    await result.wait_for_background_tasks()
    record = record_of(result.executions)
    assert (record.status, record.reason) == ("error", "Unreadable (its text cannot be made)")
    assert record_of(result.executions, "next").status == "completed"


def _dict_for_violation() -> PluginResult[Any]:
    violation = {"reason": "because", "description": "it is so", "code": "NO"}
    return PluginResult.model_construct(continue_processing=False, violation=violation)


def _number_for_violation() -> PluginResult[Any]:
    return PluginResult.model_construct(continue_processing=False, violation=7)


def _number_for_reason() -> PluginResult[Any]:
    violation = PluginViolation.model_construct(reason=7, description="it is so", code="NO")
    return PluginResult.model_construct(continue_processing=False, violation=violation)


def _list_for_metadata() -> PluginResult[Any]:
    return denial().model_copy(update={"metadata": ["x"]})


def _text_for_delay() -> PluginResult[Any]:
    return denial().model_copy(update={"retry_delay_ms": "5"})


@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (_dict_for_violation, "NO"),
        (_number_for_violation, "plugin_violation"),
        (_number_for_reason, "plugin_violation"),
        (_list_for_metadata, "NO"),
        (_text_for_delay, "NO"),
    ],
)
async def test_a_denial_stands_whatever_is_wrong_with_what_it_says(
    mode: str, answer: Callable[[], PluginResult[Any]], code: str
) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return answer()

    manager = manager_of(plugin(handler, mode=mode, on_error="ignore"))
    result, _ = await call(manager)
    assert result.continue_processing is False
    assert result.violation is not None
    assert (result.violation.code, result.violation.plugin_name) == (code, "p")
    record = record_of(result.executions)
    assert (record.status, record.requested_allow, record.error_code) == ("completed", False, code)
    with pytest.raises(PluginViolationError) as caught:
        await call(manager, violations_as_exceptions=True)
    assert caught.value.violation is not None
    assert caught.value.violation.code == code


async def test_a_violation_that_two_plugins_share_is_not_renamed_in_the_results_of_the_first() -> None:
    shared = denial()

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return shared

    first, _ = await call(manager_of(plugin(handler, "first")))
    second, _ = await call(manager_of(plugin(handler, "second")))
    assert first.violation is not None
    assert second.violation is not None
    assert (first.violation.plugin_name, second.violation.plugin_name) == ("first", "second")


@pytest.mark.parametrize("mode", SHARING)
@pytest.mark.parametrize("junk", [{"state": {"a": 1}}, 7, None])
async def test_a_plugin_that_replaces_its_global_context_by_something_else_shares_nothing(mode: str, junk: Any) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context = junk
        return PluginResult()

    host = GlobalContext(request_id="r", state={"x": 1})
    result, _ = await call(manager_of(plugin(handler, mode=mode)), context=host)
    assert [record.status for record in result.executions] == ["completed"]
    assert host.state == {"x": 1}


@pytest.mark.parametrize("mode", SHARING)
@pytest.mark.parametrize("answer", [allow, deny])
async def test_state_that_cannot_be_read_leaves_the_answer_alone(mode: str, answer: Handler) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state = Unlistable(a=1)
        result: PluginResult[Any] = await answer(payload, context)
        return result

    host = GlobalContext(request_id="r")
    result, _ = await call(manager_of(plugin(handler, mode=mode)), context=host)
    assert [record.status for record in result.executions] == ["completed"]
    assert result.continue_processing is (answer is allow or mode == "transform")
    assert host.state == {}


@pytest.mark.parametrize("mode", SHARING)
async def test_what_the_host_changes_inside_of_shared_state_meanwhile_is_not_taken_back(mode: str) -> None:
    has_read, may_end = asyncio.Event(), asyncio.Event()

    async def reads(payload: Any, context: Any) -> PluginResult[Any]:
        assert context.global_context.state["x"] == {"n": 1}
        has_read.set()
        await may_end.wait()
        return PluginResult()

    host = GlobalContext(request_id="r", state={"x": {"n": 1}})
    running = asyncio.create_task(call(manager_of(plugin(reads, mode=mode)), context=host))
    await has_read.wait()
    host.state["x"]["n"] = 2
    may_end.set()
    await running
    assert host.state == {"x": {"n": 2}}


async def _calls_from_one_table(mode: str) -> tuple[list[Any], GlobalContext, GlobalContext]:
    waits, may_end = asyncio.Event(), asyncio.Event()
    seen: list[Any] = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        if not isinstance(payload, ToolPostInvokePayload):
            context.set_state("known", payload.name)
            return PluginResult()
        if payload.name == "a":
            waits.set()
            await may_end.wait()
        seen.append((payload.name, context.global_context.tenant_id, context.get_state("known")))
        context.global_context.state[payload.name] = True
        return PluginResult()

    manager = manager_of(plugin(handler, hooks=[TOOL, "tool_post_invoke"], mode=mode))
    _, table = await call(manager)
    hosts = [GlobalContext(request_id="r", tenant_id=name) for name in "ab"]
    payloads = [ToolPostInvokePayload(name=name, result={}) for name in "ab"]
    first = asyncio.create_task(manager.invoke_hook("tool_post_invoke", payloads[0], hosts[0], table))
    await waits.wait()
    await manager.invoke_hook("tool_post_invoke", payloads[1], hosts[1], table)
    may_end.set()
    await first
    return seen, hosts[0], hosts[1]


@pytest.mark.parametrize("mode", SHARING)
async def test_two_calls_that_go_on_from_one_table_at_the_same_time_keep_their_requests_apart(mode: str) -> None:
    seen, host_a, host_b = await _calls_from_one_table(mode)
    assert seen == [("b", "b", "t"), ("a", "a", "t")]
    assert (host_a.state, host_b.state) == ({"a": True}, {"b": True})


async def test_a_plugin_that_is_listed_twice_side_by_side_loses_no_shared_state() -> None:
    turns = 0

    async def writes(payload: Any, context: Any) -> PluginResult[Any]:
        nonlocal turns
        turns += 1
        context.global_context.state[f"turn {turns}"] = True
        await asyncio.sleep(0)
        return PluginResult()

    host = GlobalContext(request_id="r")
    await call(manager_of(plugin(writes, hooks=[TOOL, TOOL], mode="concurrent")), context=host)
    assert host.state == {"turn 1": True, "turn 2": True}


def _recovers(answer: Handler) -> Handler:
    calls = 0

    async def handler(payload: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("broken")
        return await answer(payload, context)

    return handler


async def test_a_call_that_does_not_concern_a_disabled_plugin_does_not_use_up_its_trial() -> None:
    clock = FixedClock(datetime(2030, 1, 1, tzinfo=UTC))
    only_t = PluginCondition(tools={"t"})
    with use_clock(clock):
        manager = manager_of(
            plugin(_recovers(allow), on_error="disable", disable_cooldown_s=60, conditions=[only_t]),
        )
        await call(manager)
        assert manager.disabled_plugins == {"p"}
        clock.advance(60)
        other, _ = await call(manager, tool_payload().model_copy(update={"name": "other"}))
        assert other.executions == []
        result, _ = await call(manager)
    assert record_of(result.executions).status == "completed"
    assert manager.disabled_plugins == frozenset()


@pytest.mark.parametrize("mode", MODES)
async def test_a_trial_that_ends_in_a_raised_violation_has_succeeded(mode: str) -> None:
    async def violates(payload: Any, context: Any) -> Any:
        raise PluginViolationError("no", PluginViolation(reason="r", description="d", code="C"))

    clock = FixedClock(datetime(2030, 1, 1, tzinfo=UTC))
    with use_clock(clock):
        manager = manager_of(plugin(_recovers(violates), mode=mode, on_error="disable", disable_cooldown_s=60))
        for _ in range(2):
            result, _ = await call(manager)
            await result.wait_for_background_tasks()
            clock.advance(60)
    assert manager.disabled_plugins == frozenset()


@pytest.mark.parametrize("handler", [cancelled_by_nobody, signals])
async def test_a_background_plugin_cannot_take_the_others_down_with_it(handler: Handler) -> None:
    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        return PluginResult()

    manager = manager_of(
        *(plugin(each, name, mode="fire_and_forget") for each, name in ((handler, "p"), (slow, "a"), (allow, "b")))
    )
    result, _ = await call(manager)
    (error,) = await result.wait_for_background_tasks()
    assert error.plugin_name == "p"
    assert [(record.status, record.pending) for record in result.executions] == [
        ("error", False),
        ("completed", False),
        ("completed", False),
    ]


@pytest.mark.parametrize("handler", [cancelled_by_nobody, signals])
async def test_a_transform_that_ends_strangely_after_a_denial_does_not_keep_the_outcome_from_being_told(
    handler: Handler,
) -> None:
    watching = Watching(deny)
    manager = manager_of(watching, plugin(handler, "redacts", mode="transform"))
    await call(manager)
    await manager.shutdown()
    (outcome,) = watching.outcomes
    assert (outcome.allowed, outcome.payload) == (False, None)


async def test_what_an_observer_does_to_the_violation_reaches_nobody_else() -> None:
    class Edits(Watching):
        async def hook_completed(self, outcome: HookOutcome) -> None:
            assert outcome.violation is not None
            self.outcomes.append(outcome)
            assert outcome.violation.details == {}
            outcome.violation.code = "OTHER"
            outcome.violation.details["x"] = 1

    first, second = Edits(allow, "first"), Edits(deny, "second")
    manager = manager_of(first, second)
    result, _ = await call(manager)
    await manager.shutdown()
    assert len(first.outcomes) == len(second.outcomes) == 1
    assert result.violation is not None
    assert (result.violation.code, result.violation.details) == ("NO", {})


async def test_transforms_that_are_through_do_not_run_again_for_the_outcome_of_a_call_cancelled_in_audit() -> None:
    auditing = asyncio.Event()

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"args": {"n": payload.args["n"] + 1}}))

    async def audits(payload: Any, context: Any) -> PluginResult[Any]:
        auditing.set()
        return await never(payload, context)

    watching = Watching(allow)
    manager = manager_of(watching, plugin(counts, "counts", mode="transform"), plugin(audits, "audits", mode="audit"))
    running = asyncio.create_task(call(manager, tool_payload(n=0)))
    await auditing.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await manager.shutdown()
    (outcome,) = watching.outcomes
    assert outcome.payload.args == {"n": 1}


async def refuses_a_value(payload: Any, context: Any) -> PluginResult[Any]:
    PluginCondition.model_validate({"tools": payload.args["password"]})
    raise AssertionError("it is refused")


async def answers_with_what_does_not_fit(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload={"name": "t", "args": payload.args["password"]})


async def answers_with_extensions_that_do_not_fit(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult.model_construct(
        continue_processing=True, modified_extensions={"custom": payload.args["password"]}
    )


async def denies_with_what_is_no_violation(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult.model_construct(continue_processing=False, violation={"reason": [payload.args["password"]]})


@pytest.mark.conformance("D9.values")
@pytest.mark.parametrize("rule", ["ignore", "disable", "fail"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "handler",
    [
        refuses_a_value,
        answers_with_what_does_not_fit,
        answers_with_extensions_that_do_not_fit,
        denies_with_what_is_no_violation,
    ],
)
async def test_no_log_line_quotes_a_value_that_was_refused(
    handler: Handler, mode: str, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    observer = plugin(handler, "a", mode=mode, on_error=rule)
    # In no source line of a traceback.
    password = "hunter2"

    async def completed(outcome: HookOutcome) -> None:
        PluginCondition.model_validate({"tools": password})

    observer.hook_completed = completed
    manager = manager_of(observer)
    with contextlib.suppress(PluginError):
        await call(manager, tool_payload(password=password))
    await manager.shutdown()
    assert "Plugin a failed in hook_completed" in caplog.text
    assert password not in caplog.text


class NeverTold:
    def __str__(self) -> str:
        raise LookupError("nobody knows")


@pytest.mark.parametrize("rule", ["ignore", "disable", "fail"])
@pytest.mark.parametrize("mode", MODES)
async def test_conditions_that_cannot_be_judged_are_the_plugin_s_failure(mode: str, rule: str) -> None:
    """Whether a guard applies must never be answered by not asking."""
    conditions = [PluginCondition(user_patterns=["ann"])]
    manager = manager_of(
        plugin(allow, "first"),
        plugin(deny, "guard", mode=mode, on_error=rule, conditions=conditions, priority=200),
        plugin(allow, "last", mode="fire_and_forget", priority=300),
    )
    context = GlobalContext(request_id="r", user={"email": NeverTold()})
    if rule == "fail" and mode in ("sequential", "transform", "concurrent"):
        with pytest.raises(PluginError) as caught:
            await call(manager, context=context)
        executions = caught.value.executions
        assert executions is not None
        assert [each.plugin_name for each in executions] == ["first", "guard"]
        assert caught.value.error.plugin_name == "guard"
    else:
        result, _ = await call(manager, context=context)
        await result.wait_for_background_tasks()
        executions = result.executions
        assert {each.plugin_name for each in executions} == {"first", "guard", "last"}
    record = record_of(executions, "guard")
    assert (record.status, record.error_code, record.requested_allow) == ("error", "plugin_error", None)
    assert record.reason == "UnknownWhetherItApplies(\"its conditions cannot be judged: LookupError('nobody knows')\")"
    assert manager.disabled_plugins == ({"guard"} if rule == "disable" else set())
    await manager.shutdown()
    assert other_tasks() == set()


async def test_a_user_of_a_type_that_is_none_of_ours_is_known_by_its_text() -> None:
    manager = manager_of(plugin(deny, conditions=[PluginCondition(user_patterns=["17"])]))
    context = GlobalContext(request_id="r")
    # Assignment is not validated.
    context.user = 4170  # type: ignore[assignment]
    assert not (await call(manager, context=context))[0].continue_processing


async def raises_a_denial(payload: Any, context: Any) -> PluginResult[Any]:
    raise PluginViolationError("no", PluginViolation(reason="r", description="d", code="C"))


@pytest.mark.parametrize("handler", [deny, raises_a_denial])
@pytest.mark.parametrize("name", ["", "  "])
@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_a_denial_of_a_plugin_without_a_name_is_a_denial(mode: str, name: str, handler: Handler) -> None:
    result, _ = await call(manager_of(plugin(handler, name, mode=mode, on_error="ignore")))
    assert not result.continue_processing
    assert record_of(result.executions, name).requested_allow is False
    assert result.violation is not None
    assert result.violation.plugin_name == name


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit", "concurrent"])
async def test_what_a_plugin_tells_of_is_the_host_s_from_then_on(mode: str) -> None:
    """A dictionary that a plugin goes on writing to would carry one request's facts into another's result."""
    live: dict[str, Any] = {"requests": []}

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        live["requests"].append(context.global_context.request_id)
        if payload.args.get("deny"):
            return denial(metadata={"live": live}, denial_metadata=live)
        return PluginResult(metadata={"live": live})

    manager = manager_of(plugin(counts, mode=mode))
    first, _ = await call(manager, context=GlobalContext(request_id="one"))
    denied, _ = await call(manager, tool_payload(deny=True), context=GlobalContext(request_id="two"))
    last, _ = await call(manager, context=GlobalContext(request_id="three"))
    assert first.metadata == {"live": {"requests": ["one"]}}
    assert denied.metadata == {"live": {"requests": ["one", "two"]}}
    if not denied.continue_processing:
        assert denied.denial_metadata == {"requests": ["one", "two"]}
    last.metadata["live"]["requests"].clear()
    assert live == {"requests": ["one", "two", "three"]}
