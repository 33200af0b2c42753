"""Judges a stream of events, one after another, with one manager.

An event is judged when the background work of those before it has ended, so that a refund or an audit record of one
call is there before the next, as it is between the calls of a living agent. Work that takes longer than a moment is
left running, and the decisions that wait for it are held back, in order and in bounded number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from cpex.framework import clock
from cpex.framework.errors import Fault, PayloadSizeError, PluginError
from cpex.framework.extensions import AgentExtension, Extensions
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.suggest import did_you_mean, shown
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.context import GlobalContext, PluginContextTable
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.tools.changes import changes, jsonable
from cpex.tools.events import BadEvent, Decision, Event, bad_event, invalid, parse_event
from cpex.tools.run.lines import MAX_LINE_BYTES, Line
from cpex.tools.run.requests import OpenRequests
from cpex.tools.run.timeline import Timeline

__all__ = ["MAX_HELD", "Replay"]

MAX_HELD = 256
"""Decisions that wait for slow background plugins; beyond it the next event waits, too."""
PATIENCE_S = 0.05
"""Seconds that an event is held up by the background work of the one before; halved each time they were in vain."""
MAX_UNREAD = 20
"""Keys that nothing reads, and that are named in warnings."""
_TASK_PREFIX = "cpex:"
"""How the pipeline names the tasks of background work."""


class FreePayload(PluginPayload, extra="allow"):
    """A payload of a hook for which nobody registered a class: its keys are its attributes."""


class Replay:
    """One run over one stream.

    Attributes:
        reached: Bytes of the stream that were judged.
    """

    def __init__(
        self,
        manager: TenantPluginManager,
        file: str,
        *,
        on_decision: Callable[[Decision], None],
        on_fault: Callable[[Fault], None],
        on_warning: Callable[[Fault], None],
        show_removed: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            manager: Initialised.
            file: How messages call the stream.
            on_decision: Told of each decision in the order of events, when its background plugins have ended.
            on_fault: Told what is wrong with a line that cannot be judged.
            on_warning: Told, once for each hook and key, what is in payloads and not judged.
        """
        self.reached = 0
        self._manager = manager
        self._file = file
        self._on_decision = on_decision
        self._on_fault = on_fault
        self._on_warning = on_warning
        self._unread: set[tuple[str, str]] = set()
        self._show_removed = show_removed
        self._timeline = Timeline()
        self._requests = OpenRequests()
        self._patience_s = PATIENCE_S
        self._slow: set[asyncio.Task[Any]] = set()
        self._held: deque[tuple[Decision, Collection[asyncio.Task[Any]]]] = deque()

    async def run(self, lines: AsyncIterable[Line]) -> bool:
        """Judge all lines, then wait for background plugins.

        Returns:
            True at the end of the stream; False when the run was cancelled before it, and decisions may still be held.
        """
        try:
            async for line in lines:
                await self._take(line)
            await self._release(0)
        except asyncio.CancelledError:
            # Ctrl-C: what was judged is still reported, so the cancellation ends here.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return False
        return True

    def finish(self) -> None:
        """Tell the decisions that are still held, whatever became of their background plugins."""
        while self._held:
            self._on_decision(self._held.popleft()[0])

    async def _take(self, line: Line) -> None:
        self.reached = line.end
        if line.data is not None and not line.data.strip():
            return
        try:
            event = self._event(line)
            payload, context, extensions = self._payload(event), self._context(event), self._extensions(event)
        except BadEvent as bad:
            self._on_fault(bad.fault)
            return
        await self._judge(event, payload, context, extensions)
        await self._settle()
        await self._release(MAX_HELD)

    # From a line to what a hook call takes.

    def _event(self, line: Line) -> Event:
        if line.data is None:
            what = f"longer than {MAX_LINE_BYTES:,} bytes"
            raise bad_event(line.number, self._file, "event-too-long", what, "write one event per line")
        return parse_event(line.number, line.data, self._file)

    def _payload(self, event: Event) -> PluginPayload:
        try:
            payload = self._payload_of(event)
        except ValidationError as error:
            help = f"see the payload of `{event.hook}` in docs/reference/hooks.md"
            raise invalid(event.line, self._file, "event-payload", ("payload",), error, help) from None
        self._warn_of_unread(event, type(payload))
        return payload

    def _warn_of_unread(self, event: Event, cls: type[PluginPayload]) -> None:
        # Models drop what they do not know, and `arguments` in place of `args` would be judged as a call without any,
        # `tenant` in place of `tenant_id` as a call of nobody's.
        if cls.model_config.get("extra") != "allow":
            self._warn_of_keys(event, f"the payload of `{event.hook}`", "event-payload-key", event.payload, cls)
        self._warn_of_keys(event, "the context", "event-context-key", event.context, GlobalContext)
        self._warn_of_keys(event, "the extensions", "event-extensions-key", event.extensions or {}, Extensions)

    def _warn_of_keys(
        self, event: Event, whose: str, code: str, given: Mapping[str, Any], cls: type[BaseModel]
    ) -> None:
        known = _keys(cls)
        for key in given:
            if key in known or (whose, key) in self._unread or len(self._unread) >= MAX_UNREAD:
                continue
            self._unread.add((whose, key))
            verb = "have" if whose.endswith("s") else "has"
            what = f"{whose} {verb} no {shown(key)}, so what stands there is not judged"
            self._on_warning(bad_event(event.line, self._file, code, what, did_you_mean(key, list(known))).fault)

    def _payload_of(self, event: Event) -> PluginPayload:
        registry, hook = get_hook_registry(), event.hook
        if registry.is_registered(hook):
            payload: PluginPayload = registry.json_to_payload(hook, event.payload)
            return payload
        if not self._manager.has_hooks_for(hook):
            help = did_you_mean(hook, [str(each) for each in registry.get_registered_hooks()])
            raise bad_event(event.line, self._file, "event-unknown-hook", f"unknown hook {shown(hook)}", help)
        for entry in (self._manager.config.plugins if self._manager.config else None) or ():
            plugin = self._manager.get_plugin(entry.name) if hook in entry.hooks else None
            try:
                if plugin is not None:
                    return plugin.json_to_payload(hook, event.payload)
            # This plugin has a handler for the hook and no class; another may have one.
            except PluginError:
                continue
        return FreePayload.model_validate(event.payload)

    def _context(self, event: Event) -> GlobalContext:
        try:
            context = GlobalContext.model_validate(event.context)
        except ValidationError as error:
            raise invalid(event.line, self._file, "event-context", ("context",), error) from None
        if event.session is not None:
            context.metadata = {**context.metadata, "session_id": event.session}
        return context

    def _extensions(self, event: Event) -> Extensions | None:
        if event.extensions is None and event.session is None:
            return None
        try:
            extensions = Extensions.model_validate(event.extensions or {})
        except ValidationError as error:
            raise invalid(event.line, self._file, "event-extensions", ("extensions",), error) from None
        if event.session is None:
            return extensions
        agent = extensions.agent or AgentExtension()
        return extensions.model_copy(update={"agent": agent.model_copy(update={"session_id": event.session})})

    # From the hook call to a decision.

    async def _judge(
        self, event: Event, payload: PluginPayload, context: GlobalContext, extensions: Extensions | None
    ) -> None:
        incoming = self._requests.resume(context)
        contexts: PluginContextTable | None = None
        tasks: list[asyncio.Task[Any]] = []
        with clock.use_clock(self._timeline.clock(event.ts)):
            started = clock.elapsed_ns()
            try:
                result, contexts = await self._manager.invoke_hook(
                    event.hook, payload, context, incoming, extensions=extensions
                )
            except (PluginError, PayloadSizeError) as error:
                decision = _failed(event, error, clock.elapsed_ns() - started)
            else:
                duration_ns = clock.elapsed_ns() - started
                tasks = result.background_tasks
                decision = self._decided(event, payload, result, duration_ns)
        self._requests.keep(event.hook, context, contexts, allowed=decision.allowed)
        self._held.append((decision, tasks))

    def _decided(self, event: Event, payload: PluginPayload, result: PluginResult[Any], duration_ns: int) -> Decision:
        operations = []
        if result.modified_payload is not None:
            before, after = jsonable(payload), jsonable(result.modified_payload)
            operations = changes(before, after, written=event.payload, show_removed=self._show_removed)
        return Decision(
            event=event,
            allowed=result.continue_processing,
            duration_ns=duration_ns,
            executions=result.executions,
            violation=result.violation,
            changes=operations,
            metadata=result.metadata or {},
        )

    # Background work.

    async def _settle(self) -> None:
        """Let background work end, unless it takes long; leave room for that of the next event."""
        new = _background_tasks() - self._slow
        if new:
            _, late = await asyncio.wait(new, timeout=self._patience_s)
            # A back end that does not answer must not cost every event the whole patience.
            self._patience_s = self._patience_s / 2 if late else PATIENCE_S
        else:
            # Cancellation and signals are only heard when the loop gets its turn.
            await asyncio.sleep(0)
        self._slow = _background_tasks()
        background = self._manager.executor.background
        while self._slow and len(background) > background.limit // 2:
            # Beyond the limit the pipeline refuses background work; a recorded stream can wait instead.
            _, self._slow = await asyncio.wait(self._slow, return_when=asyncio.FIRST_COMPLETED)

    async def _release(self, most: int) -> None:
        """Tell the decisions whose background plugins have ended, and wait until no more than `most` are held."""
        while self._held:
            decision, tasks = self._held[0]
            running = [task for task in tasks if not task.done()]
            if running and len(self._held) <= most:
                return
            if running:
                await asyncio.wait(running)
            self._held.popleft()
            self._on_decision(decision)


def _keys(cls: type[BaseModel]) -> dict[str, None]:
    """What a part of an event may be written with, in the order of its fields."""
    names = ((name, field.alias, field.validation_alias) for name, field in cls.model_fields.items())
    return {each: None for group in names for each in group if isinstance(each, str)}


def _background_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name().startswith(_TASK_PREFIX)}


def _failed(event: Event, error: PluginError | PayloadSizeError, duration_ns: int) -> Decision:
    if isinstance(error, PluginError):
        return Decision(event, False, duration_ns, error.executions or (), error=error.error)
    failure = PluginErrorModel(message=str(error), plugin_name="", code="payload_too_large")
    return Decision(event, False, duration_ns, error=failure)
