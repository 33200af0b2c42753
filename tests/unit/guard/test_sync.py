"""The guard without an event loop: its thread, the caller's thread, and how both end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import allow, deny, manager_of, plugin

from cpex.framework.cmf.message import Message, Role, TextContent
from cpex.framework.errors import CoverageError, GuardError, PluginLoadError, PluginViolationError
from cpex.framework.guard import AGENT, MODEL, PROMPT, RESOURCE, TOOL
from cpex.framework.guard.decorator import covered
from cpex.framework.guard.sync import SyncGuard
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.coverage import CoverageConfig, CoverageMode
from cpex.framework.models.result import PluginResult

PRE, POST = "tool_pre_invoke", "tool_post_invoke"


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "cpex-guard"]


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """What is started in the background inherits that Ctrl-C is ignored, and these tests may be."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def rewrite(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload=payload.model_copy(update={"args": {"q": "tea"}}))


def test_a_call_runs_between_its_hooks_in_the_thread_of_the_caller() -> None:
    with SyncGuard(manager_of(plugin(rewrite))) as guard, guard.request(user="ann") as request:
        found = request.call_tool("search", {"q": "coffee"}, lambda q: (q, threading.current_thread()))
        assert found == ("tea", threading.current_thread())
        assert request.read_resource("file:///a", str.upper) == "FILE:///A"
        assert request.get_prompt("greet", {"name": "ann"}, lambda name: name) == "ann"
        assert request.call_agent("a", ["hi"], lambda messages: messages) == ["hi"]
        assert request.call_model([], lambda messages: messages) == []
    assert threads() == []


def test_a_coroutine_function_is_awaited_on_the_loop_of_the_guard() -> None:
    async def search(q: str) -> tuple[str, str]:
        await asyncio.sleep(0)
        return q, threading.current_thread().name

    with SyncGuard(manager_of(plugin(rewrite))) as guard, guard.request() as request:
        assert request.call_tool("search", {"q": "coffee"}, search) == ("tea", "cpex-guard")


def test_denials_and_exceptions_of_the_operation_reach_the_caller() -> None:
    with SyncGuard(manager_of(plugin(deny, conditions=[{"tools": ["shell"]}]))) as guard:
        with guard.request() as request:
            with pytest.raises(PluginViolationError):
                request.call_tool("shell", {}, lambda: 1)
            with pytest.raises(ZeroDivisionError):
                request.call_tool("divide", {}, lambda: 1 // 0)
        with guard.request(on_denial="return") as request:
            assert request.call_tool("shell", {}, lambda: 1).code == "NO"


def test_a_rewritten_name_is_resolved_in_the_thread_of_the_caller() -> None:
    async def rename(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"name": "other"}))

    tools = {"other": lambda: threading.current_thread()}
    with SyncGuard(manager_of(plugin(rename))) as guard, guard.request() as request:
        assert request.call_tool("a", {}, lambda: None, resolve=tools.__getitem__) is threading.current_thread()


def test_threads_of_one_guard_do_not_wait_for_one_another_and_are_kept_apart() -> None:
    async def pre(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("name", payload.name)
        return PluginResult()

    async def post(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"result": context.get_state("name")}))

    both = plugin(pre, hooks=[PRE, POST])
    both.tool_post_invoke = post
    gate = threading.Barrier(4)
    with SyncGuard(manager_of(both)) as guard, guard.request() as request, ThreadPoolExecutor(4) as pool:
        names = ["a", "b", "c", "d"]
        results = pool.map(lambda name: request.call_tool(name, {}, lambda: gate.wait(60)), names)
        assert list(results) == names


def test_decorated_functions_run_in_the_open_request_or_in_one_of_their_own() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(context.global_context.user)
        return PluginResult()

    guard = SyncGuard(manager_of(plugin(look)))

    @covered()
    def query(q: str) -> str:
        return q

    @guard.guarded()
    def search(q: str) -> str:
        return query(q)

    with guard:
        assert search("tea") == "tea"
        with guard.request(user="ann"):
            assert search(q="tea") == "tea"
    assert seen == [None, "ann"]


def test_an_exit_in_the_operation_ends_the_call_and_leaves_nothing_running() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with SyncGuard(manager_of(plugin(allow))) as guard, guard.request() as request:
        with pytest.raises(SystemExit):
            request.call_tool("a", {}, leave)
        assert request.request.ledger.records[0].outcome == "cancelled"
        assert request.call_tool("b", {}, lambda: 1) == 1


def test_closing_lets_a_call_that_is_under_way_fail() -> None:
    started = threading.Event()

    async def hang(payload: Any, context: Any) -> PluginResult[Any]:
        started.set()
        await asyncio.Event().wait()
        return PluginResult()

    guard = SyncGuard(manager_of(plugin(hang)))
    guard.start()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(guard.request().call_tool, "a", {}, lambda: 1)
        assert started.wait(60)
        guard.close()
        with pytest.raises(GuardError, match="closed while a call was under way"):
            pending.result(60)
    guard.close()
    assert threads() == []


def test_a_guard_that_does_not_run_and_one_on_an_event_loop_are_errors() -> None:
    guard = SyncGuard(manager_of(plugin(allow)))
    with pytest.raises(GuardError, match="not running in this process"):
        guard.request().call_tool("a", {}, lambda: 1)

    async def host() -> None:
        guard.request().call_tool("a", {}, lambda: 1)

    with guard, pytest.raises(GuardError, match="would stop it"):
        asyncio.run(host())


def test_plugins_that_cannot_be_started_leave_no_thread() -> None:
    entry = PluginConfig(name="p", kind="no.such.Plugin", hooks=[PRE])
    with pytest.raises(PluginLoadError):
        SyncGuard(TenantPluginManager(Config(plugins=[entry]))).start()
    assert threads() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no forking here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_start_its_own() -> None:
    with SyncGuard(manager_of(plugin(allow))) as guard:
        child = os.fork()
        if child == 0:
            try:
                guard.request().call_tool("a", {}, lambda: 1)
            except GuardError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_state_goes_from_pre_to_post_and_on_to_the_next_call() -> None:
    seen: list[Any] = []

    async def count(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("hooks", context.get_state("hooks", 0) + 1)
        seen.append(context.get_state("hooks"))
        return PluginResult()

    with SyncGuard(manager_of(plugin(count, hooks=[PRE, POST]))) as guard, guard.request() as request:
        for _ in range(2):
            request.call_tool("a", {}, lambda: 1)
    assert seen == [1, 2, 3, 4]


def test_every_kind_of_operation_runs_between_its_hooks() -> None:
    seen: set[str] = set()

    def of(hook: str) -> Any:
        async def record(payload: Any, context: Any) -> PluginResult[Any]:
            seen.add(hook)
            return PluginResult()

        return plugin(record, hook, hooks=[hook])

    kinds = (TOOL, PROMPT, RESOURCE, AGENT, MODEL)
    hooks = {step.hook for kind in kinds for step in (*kind.before, *kind.after)}
    said = Message(role=Role.USER, content=[TextContent(text="hi")])
    with SyncGuard(manager_of(*map(of, sorted(hooks)))) as guard, guard.request() as request:
        assert request.call_tool("a", {"x": 1}, lambda x: x + 1) == 2
        assert request.get_prompt("greet", {"name": "ann"}, lambda name: f"hello {name}") == "hello ann"
        assert request.read_resource("file:///a", lambda uri: f"content of {uri}") == "content of file:///a"
        answer = [{"role": "assistant", "content": "done"}]
        assert request.call_agent("helper", [{"role": "user", "content": "hi"}], lambda messages: answer) == answer
        assert request.call_model([said], lambda messages: messages[0]) == said
        assert guard.guarded(RESOURCE)(lambda uri: uri)("file:///a") == "file:///a"
    assert seen == hooks


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals cannot be sent to a thread here")
@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_while_a_plugin_runs_ends_the_call_and_the_plugin() -> None:
    ended = threading.Event()

    async def hang(payload: Any, context: Any) -> PluginResult[Any]:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return PluginResult()

    with SyncGuard(manager_of(plugin(hang))) as guard, guard.request() as request:
        with pytest.raises(KeyboardInterrupt):
            request.call_tool("a", {}, lambda: 1)
        assert ended.wait(60)
        assert request.request.ledger.records[0].outcome == "cancelled"
    assert threads() == []


@pytest.mark.skipif(os.name == "nt", reason="interrupts wake the waiting thread here")
@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_that_comes_with_the_end_of_a_call_does_not_leave_it_waiting() -> None:
    async def interrupt(payload: Any, context: Any) -> PluginResult[Any]:
        # Of this thread: the other one hears of it when it wakes, which is when the call has ended.
        signal.raise_signal(signal.SIGINT)
        return PluginResult()

    with SyncGuard(manager_of(plugin(interrupt, hooks=[POST]))) as guard, guard.request() as request:
        with pytest.raises(KeyboardInterrupt):
            request.call_tool("a", {}, lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            request.call_tool("b", {}, lambda: 1)
    assert threads() == []


def test_an_exception_in_a_decorated_function_goes_through_with_its_own_stack() -> None:
    guard = SyncGuard(manager_of(plugin(allow, hooks=[PRE, POST])))

    @guard.guarded()
    def divide(x: int) -> float:
        return 1 / x

    with guard:
        with pytest.raises(ZeroDivisionError) as caught:
            divide(0)
        assert divide(2) == 0.5
    assert "divide" in str(caught.traceback[-1])


def test_a_call_that_bypassed_a_mandatory_hook_raises_or_alarms(caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []
    mandatory = [POST]
    strict = manager_of(plugin(allow), coverage=CoverageConfig(mandatory=mandatory))
    with SyncGuard(strict) as guard, guard.request() as request:
        with pytest.raises(CoverageError, match="tool `a` went past mandatory hook `tool_post_invoke`"):
            request.call_tool("a", {}, lambda: called.append(1))
        with pytest.raises(CoverageError):
            covered()(lambda: called.append(2))()
    assert called == [1]
    alarming = manager_of(plugin(allow), coverage=CoverageConfig(mode=CoverageMode.ALARM, mandatory=mandatory))
    with SyncGuard(alarming) as guard, guard.request() as request:
        assert request.call_tool("b", {}, lambda: 1) == 1
    assert "tool `b` went past mandatory hook `tool_post_invoke`" in caplog.text


def test_functions_that_give_their_results_one_by_one_are_refused_when_decorating() -> None:
    def steps() -> Any:
        yield 1

    with pytest.raises(TypeError, match="gives its results one by one"):
        SyncGuard(manager_of()).guarded()(steps)
