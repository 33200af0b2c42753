"""Hook calls in a loop: what is timed, and the floor it is held against.

Everything here is written with names that both releases export. A loop makes `calls` hook calls and returns the
nanoseconds they took; what a host would have at hand already (payloads, the manager) is made outside the timed stretch,
and one `GlobalContext` a call inside it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from noop_plugins import CHANGED_KEY

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginMode,
    TenantPluginManager,
    ToolHookType,
    ToolPreInvokePayload,
)
from cpex.framework.models import Config

Loop = Callable[[int], Awaitable[int]]

HOOK = ToolHookType.TOOL_PRE_INVOKE
FRESH_AT_ONCE = 50
"""Fresh large payloads that are kept ready at one time."""
BACKGROUND_AT_ONCE = 20
"""Calls after which the host waits for its background plugins, so that their work is in the figure."""


@dataclass(frozen=True)
class Case:
    """What one row measures."""

    subject: Loop
    baseline: Loop
    """The floor, unless the row says otherwise."""
    manager: TenantPluginManager


def config_of(kind: str, count: int, mode: str = "sequential", hook: str = "tool_pre_invoke") -> Config:
    """A configuration of `count` plugins of one class for one hook."""
    return Config(
        plugins=[
            PluginConfig(name=f"plugin_{number}", kind=kind, hooks=[hook], mode=PluginMode(mode), priority=number)
            for number in range(count)
        ]
    )


def small_payload() -> ToolPreInvokePayload:
    """A payload of one argument."""
    return ToolPreInvokePayload(name="get_weather", args={"city": "Lisbon"})


def large_text() -> str:
    """The arguments of the large payload as JSON: 100 keys with nested values, about 50 kB."""
    return json.dumps({f"key_{number}": _record(number) for number in range(100)})


def _record(number: int) -> dict[str, Any]:
    """One order: 27 scalars at three depths, of the sizes that business data has."""
    lines = [{"sku": f"SKU-{number}-{line}", "title": f"Item {line}", "count": line, "cents": 995} for line in range(4)]
    return {
        "id": number,
        "customer": {"name": f"Customer number {number}", "email": f"customer.{number}@example.com", "gold": True},
        "address": {"street": f"{number} Long Lane", "city": "Lisbon", "geo": {"lat": 38.7, "lon": -9.1}},
        "tags": ["newsletter", f"region-{number % 7}"],
        "lines": lines,
        "note": "leave it with a neighbour",
    }


async def start(config: Config) -> TenantPluginManager:
    """A manager that is ready for calls."""
    manager = TenantPluginManager(config)
    await manager.initialize()
    return manager


def floor(manager: TenantPluginManager, count: int, payload: ToolPreInvokePayload) -> Loop:
    """Await the plugins' own bound handlers one after another, and make one `GlobalContext` a call."""
    handlers = [manager.get_plugin(f"plugin_{number}").tool_pre_invoke for number in range(count)]
    context = PluginContext(global_context=GlobalContext(request_id="1"))

    async def loop(calls: int) -> int:
        begun = perf_counter_ns()
        for _ in range(calls):
            GlobalContext(request_id="1")
            for handler in handlers:
                await handler(payload, context)
        return perf_counter_ns() - begun

    return loop


def repeated(manager: TenantPluginManager, payload: ToolPreInvokePayload) -> Loop:
    """Call the hook with the same payload object again and again."""
    invoke = manager.invoke_hook

    async def loop(calls: int) -> int:
        begun = perf_counter_ns()
        for _ in range(calls):
            await invoke(HOOK, payload=payload, global_context=GlobalContext(request_id="1"))
        return perf_counter_ns() - begun

    return loop


def fresh(manager: TenantPluginManager, text: str) -> Loop:
    """Call the hook with a payload object a call, each parsed anew from JSON before the clock starts."""
    invoke = manager.invoke_hook

    async def loop(calls: int) -> int:
        spent = 0
        for first in range(0, calls, FRESH_AT_ONCE):
            number = min(FRESH_AT_ONCE, calls - first)
            payloads = [ToolPreInvokePayload(name="import", args=json.loads(text)) for _ in range(number)]
            begun = perf_counter_ns()
            for payload in payloads:
                await invoke(HOOK, payload=payload, global_context=GlobalContext(request_id="1"))
            spent += perf_counter_ns() - begun
        return spent

    return loop


def background(manager: TenantPluginManager, payload: ToolPreInvokePayload) -> Loop:
    """Call the hook in batches, and wait for the background plugins of each batch."""
    invoke = manager.invoke_hook

    async def loop(calls: int) -> int:
        begun = perf_counter_ns()
        for first in range(0, calls, BACKGROUND_AT_ONCE):
            results = [
                (await invoke(HOOK, payload=payload, global_context=GlobalContext(request_id="1")))[0]
                for _ in range(min(BACKGROUND_AT_ONCE, calls - first))
            ]
            for result in results:
                await result.wait_for_background_tasks()
        return perf_counter_ns() - begun

    return loop


async def noop_case(mode: str, count: int) -> Case:
    """No-op plugins of one mode on a small payload, against the floor."""
    manager, payload = await start(config_of("noop_plugins.NoOp", count, mode)), small_payload()
    await _expect(manager, payload, plugins=count)
    make = background if mode == "fire_and_forget" else repeated
    return Case(make(manager, payload), floor(manager, count, payload), manager)


async def no_plugin_case() -> Case:
    """A hook for which nobody is registered, in a manager that has a plugin elsewhere."""
    manager, payload = await start(config_of("noop_plugins.NoOp", 1, hook="tool_pre_invoke")), small_payload()
    invoke = manager.invoke_hook

    async def loop(calls: int) -> int:
        begun = perf_counter_ns()
        for _ in range(calls):
            await invoke(ToolHookType.TOOL_POST_INVOKE, payload=payload, global_context=GlobalContext(request_id="1"))
        return perf_counter_ns() - begun

    return Case(loop, floor(manager, 0, payload), manager)


async def large_case(*, same: bool) -> Case:
    """One no-op plugin on the large payload, against the same call with a small one."""
    manager, text = await start(config_of("noop_plugins.NoOp", 1)), large_text()
    payload = ToolPreInvokePayload(name="import", args=json.loads(text))
    await _expect(manager, payload, plugins=1)
    subject = repeated(manager, payload) if same else fresh(manager, text)
    return Case(subject, repeated(manager, small_payload()), manager)


async def rewrite_case(kind: str) -> Case:
    """One plugin that changes one of the large payload's 100 keys, against its bare handler."""
    manager = await start(config_of(f"noop_plugins.{kind}", 1))
    args = json.loads(large_text())
    payload = ToolPreInvokePayload(name="import", args=args)
    result = await _expect(manager, payload, plugins=1)
    if result.modified_payload.args[CHANGED_KEY] != "rewritten":
        raise RuntimeError(f"plugin `{kind}` ran, and its change did not arrive")
    bare = ToolPreInvokePayload(name="import", args=json.loads(large_text()))
    return Case(repeated(manager, payload), floor(manager, 1, bare), manager)


async def _expect(manager: TenantPluginManager, payload: ToolPreInvokePayload, *, plugins: int) -> Any:
    """Make one call and see that every plugin ran, so that no figure is of work left undone."""
    result, _ = await manager.invoke_hook(HOOK, payload=payload, global_context=GlobalContext(request_id="1"))
    await result.wait_for_background_tasks()
    if not result.continue_processing or len(result.executions) != plugins:
        raise RuntimeError(f"expected {plugins} plugins to run and allow, got {result.executions}")
    return result


CASES: dict[str, Callable[[], Awaitable[Case]]] = {
    **{f"{mode}-10": lambda mode=mode: noop_case(mode, 10) for mode in ("sequential", "transform", "audit")},
    "one-plugin": lambda: noop_case("sequential", 1),
    "concurrent-10": lambda: noop_case("concurrent", 10),
    "background-10": lambda: noop_case("fire_and_forget", 10),
    "no-plugin": no_plugin_case,
    "large-same": lambda: large_case(same=True),
    "large-fresh": lambda: large_case(same=False),
    "rewrite-copy": lambda: rewrite_case("RewriteCopy"),
    "rewrite-in-place": lambda: rewrite_case("RewriteInPlace"),
}
"""Row key -> what makes its case."""
