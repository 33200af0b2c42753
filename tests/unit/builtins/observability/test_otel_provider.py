"""Live spans: the tracing port on OpenTelemetry, seen through a manager and the spans that an SDK exports."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cpex.builtins.observability.otel_provider import OpenTelemetryProvider, in_live_call
from cpex.builtins.observability.request_tracer import RequestTracerPlugin
from cpex.framework import GlobalContext, Plugin, PluginResult, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.observability import ObservabilityProvider, current_trace_id

PRE = "tool_pre_invoke"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Sleeps(Plugin):
    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        return PluginResult()


class Breaks(Plugin):
    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        raise RuntimeError("broken")


@pytest.fixture(autouse=True)
def specimens() -> Iterator[None]:
    module = ModuleType("t_live_spans")
    vars(module).update(Sleeps=Sleeps, Breaks=Breaks)
    sys.modules["t_live_spans"] = module
    yield
    del sys.modules["t_live_spans"]


class Spans:
    def __init__(self) -> None:
        self.sdk = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.sdk.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.provider = OpenTelemetryProvider(tracer_provider=self.sdk)

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == name]


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.sdk.shutdown()


def plugin(name: str, kind: str = "Sleeps", mode: str = "sequential", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": f"t_live_spans.{kind}", "mode": mode, "hooks": [PRE], **more}


async def call(manager: TenantPluginManager, trace_id: str, request_id: str = "r") -> None:
    token = current_trace_id.set(trace_id)
    try:
        result, _ = await manager.invoke_hook(PRE, ToolPreInvokePayload(name="t"), GlobalContext(request_id=request_id))
        await result.wait_for_background_tasks()
    finally:
        current_trace_id.reset(token)
    assert not in_live_call()


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id


async def test_plugins_of_every_mode_are_spans_below_their_call(running: Any, spans: Spans) -> None:
    modes = ["sequential", "transform", "audit", "concurrent", "fire_and_forget"]
    async with running(*(plugin(mode, mode=mode) for mode in modes), plugin("second", mode="concurrent")) as manager:
        manager.observability = spans.provider
        await call(manager, f"00-{TRACE}-{SPAN}-01")
    (chain,) = spans.named("plugin.hook.invoke")
    assert trace.format_trace_id(chain.get_span_context().trace_id) == TRACE
    assert parent_of(chain) == int(SPAN, 16)
    for name in (*modes, "second"):
        (span,) = spans.named(f"plugin.execute.{name}")
        assert parent_of(span) == id_of(chain)
        assert (span.attributes or {})["plugin.name"] == name
        assert span.status.is_ok


async def test_calls_at_once_in_one_trace_keep_their_plugins_apart(running: Any, spans: Spans) -> None:
    async with running(plugin("a"), plugin("b", mode="concurrent"), plugin("c", mode="concurrent")) as manager:
        manager.observability = spans.provider
        await asyncio.gather(*(call(manager, f"00-{TRACE}-{SPAN}-01", str(number)) for number in range(20)))
    chains = {id_of(each) for each in spans.named("plugin.hook.invoke")}
    assert len(chains) == 20
    for name in "abc":
        assert {parent_of(each) for each in spans.named(f"plugin.execute.{name}")} == chains


async def test_the_hosts_current_span_is_the_parent_in_its_own_trace(running: Any, spans: Spans) -> None:
    async with running(plugin("a")) as manager:
        manager.observability = spans.provider
        with spans.sdk.get_tracer("host").start_as_current_span("handle") as host:
            await call(manager, trace.format_trace_id(host.get_span_context().trace_id))
    (chain,) = spans.named("plugin.hook.invoke")
    assert parent_of(chain) == host.get_span_context().span_id


@pytest.mark.parametrize("trace_id", [TRACE, TRACE.upper()])
async def test_a_trace_id_alone_joins_the_trace(running: Any, spans: Spans, trace_id: str) -> None:
    async with running(plugin("a")) as manager:
        manager.observability = spans.provider
        await call(manager, trace_id)
    (chain,) = spans.named("plugin.hook.invoke")
    assert trace.format_trace_id(chain.get_span_context().trace_id) == TRACE


@pytest.mark.parametrize("trace_id", ["request-17", "0" * 32, f"00-{'0' * 32}-{SPAN}-01"])
async def test_what_is_no_trace_of_opentelemetrys_starts_one(running: Any, spans: Spans, trace_id: str) -> None:
    async with running(plugin("a")) as manager:
        manager.observability = spans.provider
        await call(manager, trace_id)
    assert [parent_of(each) for each in spans.named("plugin.hook.invoke")] == [None]


async def test_a_plugin_that_fails_has_a_span_with_an_error(running: Any, spans: Spans) -> None:
    async with running(plugin("broken", "Breaks", on_error="ignore")) as manager:
        manager.observability = spans.provider
        await call(manager, TRACE)
    (span,) = spans.named("plugin.execute.broken")
    assert span.status.status_code is trace.StatusCode.ERROR


async def test_the_tracer_plugin_is_a_provider_and_makes_no_span_twice(running: Any, spans: Spans) -> None:
    entry = {"name": "tracer", "kind": "observability.RequestTracerPlugin", "mode": "fire_and_forget", "hooks": [PRE]}
    async with running(plugin("a"), entry) as manager:
        tracer = manager.get_plugin("tracer")
        assert isinstance(tracer, RequestTracerPlugin)
        assert isinstance(tracer, ObservabilityProvider)
        for source in (tracer._source, tracer._live._tracer):
            source._provider = spans.sdk
        manager.observability = tracer
        await call(manager, TRACE)
        await manager.executor.drain()
        assert len(spans.named("plugin.execute.a")) == 1
        manager.observability = None
        await call(manager, TRACE)
        await manager.executor.drain()
    assert len(spans.named("plugin.execute.a")) == 2
    assert len(spans.named("execute_tool t")) == 2


def test_closing_what_is_not_open_does_nothing(spans: Spans) -> None:
    spans.provider.end_span(None)
    spans.provider.end_span("no such span", status="error")
    span = spans.provider.start_span(trace_id=TRACE, name="own", attributes={"a": None, "b": 1})
    spans.provider.end_span(span)
    spans.provider.end_span(span)
    assert [dict(each.attributes or {}) for each in spans.named("own")] == [{"b": 1}]


def test_open_spans_are_bounded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    # The bound is no setting; a small one makes the test short.
    monkeypatch.setattr("cpex.builtins.observability.otel_provider.MAX_OPEN", 2)
    opened = [spans.provider.start_span(trace_id=TRACE, name="own", resource_type="plugin") for _ in range(3)]
    assert opened[2] is None
    for each in opened:
        spans.provider.end_span(each)
