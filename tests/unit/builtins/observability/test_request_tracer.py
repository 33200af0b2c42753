"""The tracer, seen through a manager and the spans that an OpenTelemetry SDK exports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cpex.builtins.observability.request_tracer import RequestTracerPlugin
from cpex.framework import (
    AgentPreInvokePayload,
    GlobalContext,
    HttpHeaderPayload,
    PluginConfig,
    ResourcePreFetchPayload,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
    clock,
)
from cpex.framework.extensions import Extensions, HttpExtension, RequestExtension

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
MODES = ["fire_and_forget", "audit", "sequential", "concurrent"]


class Spans:
    """What the tracer under test exported."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def operations(self) -> list[ReadableSpan]:
        """Those of operations, without the hook calls and plugins below them."""
        return [each for each in self.ended if not each.name.startswith("plugin.")]

    @property
    def only(self) -> ReadableSpan:
        (span,) = self.operations
        return span

    def named(self, name: str) -> ReadableSpan:
        (span,) = [each for each in self.ended if each.name == name]
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """An SDK in the place of the process's, which can be set only once."""
    made = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made.provider)
    yield made
    made.provider.shutdown()


def tracer(mode: str = "fire_and_forget", **changes: Any) -> dict[str, Any]:
    return {
        "name": "tracer",
        "kind": "cpex.builtins.observability.request_tracer.RequestTracerPlugin",
        "mode": mode,
        "hooks": [PRE, POST],
        **changes,
    }


async def operate(
    manager: TenantPluginManager,
    tool: str = "search",
    request_id: str = "r1",
    run: Callable[[], None] = lambda: None,
    **more: Any,
) -> None:
    """What a host does for one tool call; `run` is the tool."""
    context = GlobalContext(request_id=request_id, user="ann", metadata={"session_id": "s1"})
    payload = ToolPreInvokePayload(name=tool, args={"q": "mail ann@example.com"})
    result, contexts = await manager.invoke_hook(PRE, payload, context, **more)
    await manager.executor.drain()
    if result.continue_processing:
        run()
        done = ToolPostInvokePayload(name=tool, result={"password": "t0psecret", "n": 1})
        await manager.invoke_hook(POST, done, context, local_contexts=contexts, **more)


def events(span: ReadableSpan) -> list[str]:
    return [f"{each.name} {(each.attributes or {}).get('cpex.hook', '')}".strip() for each in span.events]


@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_call_is_one_span_from_pre_to_post(running: Any, spans: Spans, mode: str) -> None:
    async with running(tracer(mode)) as manager:
        await operate(manager)
    span = spans.only
    assert span.name == "execute_tool search"
    assert span.parent is None
    assert dict(span.attributes or {}) == {
        "cpex.request_id": "r1",
        "gen_ai.conversation.id": "s1",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "mcp.method.name": "tools/call",
    }
    assert sorted(events(span)) == sorted([PRE, POST, f"cpex.decision {PRE}", f"cpex.decision {POST}"])
    assert span.status.is_ok


@pytest.mark.parametrize("mode", MODES)
async def test_a_denied_call_is_a_span_that_says_who_denied_it(
    running: Any, allow_list: dict[str, Any], spans: Spans, mode: str
) -> None:
    async with running(tracer(mode), allow_list) as manager:
        await operate(manager, "delete")
    span = spans.only
    assert span.status.status_code is trace.StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "TOOL_NOT_ALLOWED"
    decision = next(each for each in span.events if each.name == "cpex.decision")
    assert (decision.attributes or {})["cpex.violation.plugin"] == "allow"
    assert (decision.attributes or {})["cpex.allowed"] is False
    assert "cpex.incomplete" not in (span.attributes or {})


async def test_a_would_be_denial_is_named_in_the_decision(
    running: Any, allow_list: dict[str, Any], spans: Spans
) -> None:
    async with running(tracer(), allow_list | {"mode": "audit"}) as manager:
        await operate(manager, "delete")
    decisions = [each.attributes or {} for each in spans.only.events if each.name == "cpex.decision"]
    assert [each["cpex.plugins.would_deny"] for each in decisions] == [("allow",), ()]
    assert spans.only.status.is_ok


@pytest.mark.parametrize("mode", MODES)
async def test_a_span_ends_with_its_hook_when_the_partner_is_not_configured(
    running: Any, spans: Spans, mode: str
) -> None:
    async with running(tracer(mode, hooks=[PRE])) as manager:
        await operate(manager)
    assert sorted(events(spans.only)) == [f"cpex.decision {PRE}", PRE]


async def test_parallel_calls_of_one_request_get_a_span_each(running: Any, spans: Spans) -> None:
    async with running(tracer("sequential")) as manager:
        context = GlobalContext(request_id="r1")
        for tool in ("a", "b", "a"):
            await manager.invoke_hook(PRE, ToolPreInvokePayload(name=tool), context)
        for tool in ("a", "a", "b"):
            await manager.invoke_hook(POST, ToolPostInvokePayload(name=tool, result=1), context)
    assert sorted(each.name for each in spans.operations) == ["execute_tool a", "execute_tool a", "execute_tool b"]
    assert all(len(each.events) == 4 for each in spans.operations)


@pytest.mark.parametrize(
    "extensions",
    [
        Extensions(http=HttpExtension(headers={"TraceParent": PARENT})),
        Extensions(request=RequestExtension(trace_id=TRACE, span_id=SPAN)),
    ],
)
@pytest.mark.parametrize("mode", MODES)
async def test_the_request_names_the_parent(running: Any, spans: Spans, mode: str, extensions: Extensions) -> None:
    async with running(tracer(mode, capabilities=["read_headers"])) as manager:
        await operate(manager, extensions=extensions)
    assert spans.only.parent is not None
    assert trace.format_trace_id(spans.only.parent.trace_id) == TRACE
    assert trace.format_span_id(spans.only.parent.span_id) == SPAN
    assert spans.only.parent.is_remote


async def test_headers_that_the_plugin_may_not_see_name_no_parent(running: Any, spans: Spans) -> None:
    async with running(tracer()) as manager:
        await operate(manager, extensions=Extensions(http=HttpExtension(headers={"traceparent": PARENT})))
    assert spans.only.parent is None


# Headers in a payload are what is tested here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_headers_in_the_payload_name_the_parent_too(running: Any, spans: Spans) -> None:
    payload = ToolPreInvokePayload(name="search", headers=HttpHeaderPayload({"traceparent": PARENT}))
    async with running(tracer(hooks=[PRE])) as manager:
        await manager.invoke_hook(PRE, payload, GlobalContext(request_id="r1"))
    assert trace.format_trace_id(spans.only.get_span_context().trace_id) == TRACE


@pytest.mark.parametrize("bad", ["garbage", f"00-{'0' * 32}-{SPAN}-01"])
async def test_a_parent_that_makes_no_sense_is_ignored(running: Any, spans: Spans, bad: str) -> None:
    extensions = Extensions(http=HttpExtension(headers={"traceparent": bad}), request=RequestExtension(trace_id="x"))
    async with running(tracer(capabilities=["read_headers"])) as manager:
        await operate(manager, extensions=extensions)
    assert spans.only.parent is None


@pytest.mark.parametrize("mode", MODES)
async def test_the_hosts_current_span_is_the_parent_where_the_request_names_none(
    running: Any, spans: Spans, mode: str
) -> None:
    async with running(tracer(mode)) as manager:
        with spans.provider.get_tracer("host").start_as_current_span("handle request") as host:
            await operate(manager)
    (span,) = [each for each in spans.ended if each.name == "execute_tool search"]
    assert span.parent is not None
    assert span.parent.span_id == host.get_span_context().span_id


async def test_the_hosts_current_span_is_nearer_than_the_header_that_it_came_from(running: Any, spans: Spans) -> None:
    remote = trace.SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=True, trace_flags=trace.TraceFlags(1))
    context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    extensions = Extensions(http=HttpExtension(headers={"traceparent": PARENT}))
    async with running(tracer("audit", capabilities=["read_headers"])) as manager:
        with spans.provider.get_tracer("host").start_as_current_span("handle", context=context) as host:
            await operate(manager, extensions=extensions)
    (span,) = [each for each in spans.ended if each.name == "execute_tool search"]
    assert span.parent is not None
    assert span.parent.span_id == host.get_span_context().span_id


async def test_by_default_no_argument_result_or_user_is_in_a_span(running: Any, spans: Spans) -> None:
    async with running(tracer("sequential")) as manager:
        await operate(manager)
    text = spans.only.to_json()
    assert "ann@example.com" not in text
    assert "t0psecret" not in text
    assert '"user.id"' not in text


async def test_arguments_and_user_are_recorded_on_request_without_secrets(running: Any, spans: Spans) -> None:
    settings = {"record_arguments": True, "record_user": True, "max_attribute_bytes": 100}
    async with running(tracer(config=settings)) as manager:
        await operate(manager)
        await manager.invoke_hook(
            PRE, ToolPreInvokePayload(name="big", args={"q": "x" * 200}), GlobalContext(request_id="r2")
        )
    first, second = (each.attributes or {} for each in spans.operations)
    assert first["gen_ai.tool.call.arguments"] == '{"q": "mail ann@example.com"}'
    assert first["gen_ai.tool.call.result"] == '{"password": "**********", "n": 1}'
    assert first["user.id"] == "ann"
    assert second["gen_ai.tool.call.arguments"] == "<more than 100 bytes>"


async def test_names_of_spans_take_few_values_and_carry_no_credentials(running: Any, spans: Spans) -> None:
    hooks = ["agent_pre_invoke", "resource_pre_fetch"]
    async with running(tracer(hooks=hooks)) as manager:
        await manager.invoke_hook(
            hooks[0], AgentPreInvokePayload(agent_id="planner", messages=[], model="m1"), GlobalContext(request_id="1")
        )
        await manager.invoke_hook(
            hooks[1], ResourcePreFetchPayload(uri="https://ann:pw@h/doc?key=t0psecret"), GlobalContext(request_id="2")
        )
    found = {each.name: each.attributes or {} for each in spans.ended}
    assert found["invoke_agent planner"]["gen_ai.request.model"] == "m1"
    assert found["resources/read"]["mcp.resource.uri"] == "https://h/doc"


async def test_a_span_whose_post_hook_never_comes_is_ended_as_incomplete(running: Any, spans: Spans) -> None:
    async with running(tracer("sequential")) as manager:
        await manager.invoke_hook(PRE, ToolPreInvokePayload(name="search"), GlobalContext(request_id="r1"))
        assert spans.operations == []
    assert (spans.only.attributes or {})["cpex.incomplete"] is True


async def test_times_are_the_frameworks(running: Any, spans: Spans) -> None:
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))) as now:
        async with running(tracer("sequential", hooks=[PRE, POST])) as manager:
            context = GlobalContext(request_id="r1")
            await manager.invoke_hook(PRE, ToolPreInvokePayload(name="t"), context)
            now.advance(250)
            await manager.invoke_hook(POST, ToolPostInvokePayload(name="t", result=1), context)
    began = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * 10**9
    assert spans.only.end_time == began + 250 * 10**9
    # The clock stands still during a call, whose own time is real and taken off.
    assert spans.only.start_time == pytest.approx(began, abs=120 * 10**9)


async def test_a_failing_sdk_fails_no_call_and_is_counted(
    running: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *args: Any, **more: Any) -> Any:
            raise RuntimeError("backend is down")

    broken = Broken(shutdown_on_exit=False)
    # As for the fixture: the process's own can be set only once.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: broken)
    async with running(tracer("sequential")) as manager:
        await operate(manager)
        plugin = manager.get_plugin("tracer")
    assert isinstance(plugin, RequestTracerPlugin)
    # Each decision, and the operation that was given up at the end.
    assert plugin.failures.count == 3
    assert len([each for each in caplog.records if "backend is down" in each.getMessage()]) == 1


def test_without_an_sdk_it_says_once_that_nothing_is_exported() -> None:
    # Whether a process has an SDK is decided once in its life, so this takes a process of its own.
    program = """
import asyncio, logging, sys
from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.models import Config

async def main():
    plugin = PluginConfig(
        name="tracer", kind="cpex.builtins.observability.request_tracer.RequestTracerPlugin",
        mode="fire_and_forget", hooks=["tool_pre_invoke"],
    )
    manager = TenantPluginManager(Config(plugins=[plugin]))
    await manager.initialize()
    for number in range(3):
        await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="t"), GlobalContext(request_id="r"))
    await manager.shutdown()

logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(levelname)s %(message)s")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "WARNING Plugin 'tracer': no OpenTelemetry SDK is configured in this process, so spans are made but nothing is "
        "exported; install `cpex[otel]` and set a tracer provider\n"
    )


async def test_a_provider_may_be_given_by_the_host(spans: Spans) -> None:
    own = Spans()
    config = PluginConfig(name="t", kind="k", hooks=["tool_pre_invoke"])
    plugin = RequestTracerPlugin(config, tracer_provider=own.provider)
    from cpex.framework import PluginContext

    context = PluginContext(global_context=GlobalContext(request_id="r1"))
    await plugin.tool_pre_invoke(ToolPreInvokePayload(name="t"), context, None)  # type: ignore[attr-defined]  # bound by name
    await plugin.shutdown()
    await plugin.shutdown()
    assert own.only.name == "execute_tool t"
    assert spans.ended == []
    own.provider.shutdown()


def start(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def end(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


def is_child(span: ReadableSpan, of: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == of.get_span_context().span_id


@pytest.mark.parametrize("mode", MODES)
async def test_hook_calls_and_plugins_are_spans_below_their_operation(
    running: Any, allow_list: dict[str, Any], redactor: dict[str, Any], spans: Spans, mode: str
) -> None:
    # What is real time, of the hooks, is told from what the tool takes by this clock, also on a busy machine.
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))) as now:
        async with running(allow_list, redactor, tracer(mode)) as manager:
            await operate(manager, run=lambda: now.advance(600))
    operation = spans.only
    pre, post = [each for each in spans.ended if each.name == "plugin.hook.invoke"]
    assert [(each.attributes or {})["plugin.hook.type"] for each in (pre, post)] == [PRE, POST]
    assert is_child(pre, operation)
    assert is_child(post, operation)
    allow = spans.named("plugin.execute.allow")
    first, second = [each for each in spans.ended if each.name == "plugin.execute.redactor"]
    assert is_child(allow, pre)
    assert is_child(first, pre)
    assert is_child(second, post)
    assert (first.attributes or {})["plugin.modified_payload"] is True
    # Each in its place: the operation around its calls, a call around its plugins, one plugin after another.
    assert start(operation) <= start(pre) <= start(allow) <= end(allow) <= start(first) <= end(first) <= end(pre)
    assert end(pre) <= start(post) <= start(second) <= end(second) <= end(post) <= end(operation)


async def test_the_span_of_a_denying_call_says_who_stopped_it(
    running: Any, allow_list: dict[str, Any], spans: Spans
) -> None:
    async with running(allow_list, tracer()) as manager:
        await operate(manager, "delete")
    chain, denier = spans.named("plugin.hook.invoke"), spans.named("plugin.execute.allow")
    assert (chain.attributes or {})["plugin.chain.stopped_by"] == "allow"
    assert chain.status.status_code is trace.StatusCode.ERROR
    assert (denier.attributes or {})["plugin.had_violation"] is True
    assert (denier.attributes or {})["error.type"] == "TOOL_NOT_ALLOWED"


async def test_background_plugins_have_their_span_when_they_have_ended(
    running: Any, redactor: dict[str, Any], spans: Spans
) -> None:
    async with running(redactor | {"mode": "fire_and_forget"}, tracer(hooks=[PRE])) as manager:
        await operate(manager)
    chain = spans.named("plugin.hook.invoke")
    background = spans.named("plugin.execute.redactor")
    assert is_child(background, chain)
    assert start(background) >= end(chain)


async def test_spans_of_plugins_can_be_switched_off(running: Any, redactor: dict[str, Any], spans: Spans) -> None:
    async with running(redactor, tracer(config={"plugin_spans": False})) as manager:
        await operate(manager)
    assert [each.name for each in spans.ended] == ["execute_tool search"]


async def test_message_hooks_are_traced_as_the_operations_that_they_carry(running: Any, spans: Spans) -> None:
    from cpex.framework.cmf.message import (
        Message,
        Role,
        ToolCall,
        ToolCallContentPart,
        ToolResult,
        ToolResultContentPart,
    )
    from cpex.framework.hooks.message import MessagePayload

    asked = ToolCallContentPart(content=ToolCall(tool_call_id="1", name="search", arguments={"q": "t0psecret"}))
    done = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="search", content="x", is_error=True))
    pre, post = "cmf.tool_pre_invoke", "cmf.tool_post_invoke"
    async with running(tracer("audit", hooks=[pre, post])) as manager:
        for hook, role, part in ((pre, Role.ASSISTANT, asked), (post, Role.TOOL, done)):
            message = MessagePayload(message=Message(schema_version="2.0", role=role, content=[part]))
            await manager.invoke_hook(hook, message, GlobalContext(request_id="r1"))
    assert spans.only.name == "execute_tool search"
    outcomes = [(each.attributes or {})["cpex.outcome"] for each in spans.only.events if each.name == "cpex.decision"]
    assert outcomes == ["allowed", "errored"]
    assert "t0psecret" not in spans.only.to_json()
