"""One request of a host: who asks, what plugins keep, and a call for each kind of operation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self, Unpack

from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.extensions import Extensions
from cpex.framework.guard.calls import Resolve, agent_call, awaited, performer
from cpex.framework.guard.contexts import Contexts
from cpex.framework.guard.coverage import Coverage, Ledger
from cpex.framework.guard.facts import Guarded, OnDenial, RequestFacts, check_names, checked, context_of
from cpex.framework.guard.operation import Operation
from cpex.framework.guard.operations import AGENT, MODEL, PROMPT, RESOURCE, TOOL, Kind, Step
from cpex.framework.guard.slots import overlaid, taken
from cpex.framework.hooks.agents import AgentPreInvokePayload
from cpex.framework.hooks.prompts import PromptPrehookPayload
from cpex.framework.hooks.resources import ResourcePreFetchPayload
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.models.result import PluginResult, PluginViolation

if TYPE_CHECKING:
    from types import TracebackType

    from cpex.framework.cmf.message import Message

__all__ = ["Request", "current_request"]

current_request: ContextVar[Request | None] = ContextVar("cpex_request", default=None)
"""The request that is open in this context; decorated functions run in it."""


class Request:
    """One request. Its operations may run one after another, in parallel, or inside of one another.

    Attributes:
        context: What all plugins of the request share.
        extensions: With the changes that plugins made so far; `None` when there are none.
        contexts: What each plugin keeps.
        ledger: The operations and, where hooks are mandatory, which of them have run. Operations that nothing guards
            and nothing must guard are not entered.
    """

    def __init__(self, manager: Guarded, **facts: Unpack[RequestFacts]) -> None:
        """Open it; nothing runs yet.

        Raises:
            TypeError: A fact is none that a request knows.
            ValueError: `context` was given beside one of its parts, a mandatory hook stands around no operation, or
                `on_denial` is neither of its words.
        """
        check_names(facts)
        self.manager = manager
        self.context = context_of(facts)
        self.extensions = facts.get("extensions")
        self.on_denial = checked(facts.get("on_denial", "raise"))
        self.contexts = Contexts(self.context, facts.get("contexts"))
        config = manager.config
        coverage = facts.get("coverage") or (config.coverage if config is not None else None)
        self.ledger = Ledger(Coverage(coverage) if coverage is not None else _NO_COVERAGE)
        # What `guards` found out, until a plugin comes or goes.
        self._guarded: dict[str, bool] = {}
        self._generation = -1
        self._number = 0
        self._token: Token[Request | None] | None = None

    async def __aenter__(self) -> Self:
        self._token = current_request.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            # Left in another context than it was entered in, as fixtures may be: nothing is open in this one.
            with contextlib.suppress(ValueError):
                current_request.reset(self._token)
            self._token = None
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """End the request: operations that were begun and not ended are judged.

        Raises:
            CoverageError: A mandatory hook after one of them has not run, and nothing else is being raised.
        """
        try:
            self.ledger.close()
        except GuardError:
            # What is already on its way tells more about why an operation has no end.
            if error is None:
                raise

    async def call_tool(
        self,
        name: str,
        args: Mapping[str, Any] | None,
        call: Callable[..., Any],
        *,
        resolve: Resolve | None = None,
        extensions: Extensions | None = None,
        on_denial: OnDenial | None = None,
    ) -> Any:
        """Call a tool between its hooks.

        Args:
            args: `{argument: value}`; plugins may change them, your dict stays as it is.
            call: Called as `call(**args)`; a coroutine is awaited.
            resolve: Finds the callable of another tool, for plugins that rewrite the name; without it that is an error.
            extensions: Slots for this operation alone, over those of the request.

        Returns:
            The result as plugins left it; the `PluginViolation` of a denial where `on_denial` is `return`.

        Raises:
            PluginViolationError: A plugin denied: before the call, or its result.
            PluginError: A plugin failed and its `on_error` is `fail`.
            GuardError: No plugins are running, or a plugin rewrote what cannot be rewritten.
            CoverageError: A mandatory hook has not run.
        """
        if not self.guards(TOOL):
            return await awaited(call(**(args or {})))
        payload = ToolPreInvokePayload(name=name, args=dict(args or {}))
        perform = performer("tool", "name", name, call, resolve, lambda ready: ((), ready.args or {}))
        return await self.perform(TOOL, payload, perform, extensions=extensions, on_denial=on_denial)

    async def get_prompt(
        self,
        prompt_id: str,
        args: Mapping[str, str] | None,
        render: Callable[..., Any],
        *,
        resolve: Resolve | None = None,
        extensions: Extensions | None = None,
        on_denial: OnDenial | None = None,
    ) -> Any:
        """Render a prompt between its hooks: `render(**args)`. Otherwise as `call_tool`."""
        if not self.guards(PROMPT):
            return await awaited(render(**(args or {})))
        payload = PromptPrehookPayload(prompt_id=prompt_id, args=dict(args or {}))
        perform = performer("prompt", "prompt_id", prompt_id, render, resolve, lambda ready: ((), ready.args or {}))
        return await self.perform(PROMPT, payload, perform, extensions=extensions, on_denial=on_denial)

    async def read_resource(
        self,
        uri: str,
        read: Callable[[str], Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        extensions: Extensions | None = None,
        on_denial: OnDenial | None = None,
    ) -> Any:
        """Read a resource between its hooks: `read(uri)`, where plugins may have changed the address.

        Otherwise as `call_tool`.
        """
        if not self.guards(RESOURCE):
            return await awaited(read(uri))
        payload = ResourcePreFetchPayload(uri=uri, metadata=dict(metadata or {}))
        return await self.perform(
            RESOURCE, payload, lambda ready: read(ready.uri), extensions=extensions, on_denial=on_denial
        )

    async def call_agent(
        self,
        agent_id: str,
        messages: Sequence[Any],
        invoke: Callable[..., Any],
        *,
        resolve: Resolve | None = None,
        extensions: Extensions | None = None,
        on_denial: OnDenial | None = None,
        **settings: Any,
    ) -> Any:
        """Invoke an agent between its hooks.

        Args:
            messages: Your own objects, or dicts; plugins read dicts by attribute.
            invoke: Called as `invoke(messages, **settings)`; gives a list of messages, or one.
            settings: Any of `tools`, `model`, `system_prompt` and `parameters`; plugins may change them, and those that
                are set afterwards are handed to `invoke`.

        Otherwise as `call_tool`.
        """
        if not self.guards(AGENT):
            return await awaited(invoke(messages, **settings))
        payload = AgentPreInvokePayload(agent_id=agent_id, messages=list(messages), **settings)
        perform = performer("agent", "agent_id", agent_id, invoke, resolve, agent_call(list(messages), settings))
        return await self.perform(AGENT, payload, perform, extensions=extensions, on_denial=on_denial)

    async def call_model(
        self,
        messages: Sequence[Message],
        invoke: Callable[[list[Message]], Any],
        *,
        extensions: Extensions | None = None,
        on_denial: OnDenial | None = None,
    ) -> Any:
        """Ask a model between `cmf.llm_input` and `cmf.llm_output`.

        Args:
            messages: In the common format; each is judged by itself, in order.
            invoke: Called with the messages; gives a list of messages, or one.

        Returns:
            What `invoke` gave, as plugins left it.

        Otherwise as `call_tool`.
        """
        if not self.guards(MODEL):
            return await awaited(invoke(list(messages)))
        single = False

        async def ask(ready: list[Message]) -> list[Message]:
            nonlocal single
            answer = await awaited(invoke(ready))
            single = not isinstance(answer, list | tuple)
            return [answer] if single else list(answer)

        answers = await self.perform(MODEL, list(messages), ask, extensions=extensions, on_denial=on_denial)
        return answers[0] if single and isinstance(answers, list) else answers

    async def perform(
        self,
        kind: Kind,
        payload: Any,
        run: Callable[[Any], Any],
        *,
        extensions: Extensions | None = None,
        on_denial: OnDenial | None = None,
    ) -> Any:
        """Perform an operation of any kind between its hooks.

        Args:
            payload: Of the kind's first hook; of a model, a list of messages.
            run: Called with the payload as plugins left it, whatever they changed; a coroutine is awaited.

        Otherwise as `call_tool`.
        """
        if on_denial is not None:
            checked(on_denial)
        if not self.guards(kind):
            return await awaited(run(payload))
        operation = self.operation(kind, payload, extensions=extensions)
        try:
            async with operation:
                ready = await operation.before()
                with operation.being_performed():
                    result = await awaited(run(ready))
                return await operation.after(result)
        except PluginViolationError as denial:
            # One that comes out of the operation itself is another guard's.
            if denial is not operation.denial or (on_denial or self.on_denial) == "raise":
                raise
            return denial.violation or PluginViolation(reason=denial.message, description="", code="plugin_violation")

    async def ask(self, hook: str, payload: Any) -> PluginResult[Any]:
        """Call one hook that stands around no operation, such as `http_auth_resolve_user`, with all the request knows.

        Raises:
            PluginViolationError: A plugin denied.
            PluginError: A plugin failed and its `on_error` is `fail`.
            GuardError: Plugins are configured, and none are running.
        """
        if not self.manager.initialized:
            self.refuse_unstarted()
        start, seen = self.contexts.entries, self.extensions
        result, table = await self.manager.invoke_hook(
            hook, payload, self.context, self.contexts.lend(), violations_as_exceptions=True, extensions=seen
        )
        self.contexts.take_back(start, table)
        if result.modified_extensions is not None:
            self.take_extensions(None, seen, result.modified_extensions)
        return result

    def operation(self, kind: Kind, payload: Any, *, extensions: Extensions | None = None) -> Operation:
        """Begin an operation whose parts the host runs itself; see `Operation`.

        Raises:
            GuardError: Plugins are configured, and none are running.
        """
        self.guards(kind)
        self._number += 1
        return Operation(self, kind, payload, f"{self.context.request_id}:{self._number}", extensions)

    def guards(self, kind: Kind) -> bool:
        """Whether anything stands around operations of a kind: a plugin, or a demand for one.

        Raises:
            GuardError: Plugins are configured, and none are running.
        """
        manager = self.manager
        if not manager.initialized:
            self.refuse_unstarted()
        generation = manager.generation
        if generation != self._generation:
            self._generation, self._guarded = generation, {}
        known = self._guarded.get(kind.name)
        if known is None:
            steps = (*kind.before, *kind.after)
            known = self._guarded[kind.name] = self.ledger.coverage.of(kind) or any(map(self.calls, steps))
        return known

    def refuse_unstarted(self) -> None:
        """See that plugins run, if any are configured.

        Raises:
            GuardError: None do.
        """
        manager = self.manager
        plugins = (manager.config.plugins if manager.config is not None else None) or []
        if plugins and not manager.initialized:
            raise GuardError(
                f"no plugins are running, so nothing would guard the operation, and {len(plugins)} are configured; "
                "`await manager.initialize()` first, and do not use a request after `shutdown()`"
            )

    def calls(self, step: Step) -> bool:
        """Whether a step's hook is called: it concerns a plugin, and a twin is handled by one.

        Raises:
            GuardError: Plugins are configured, and none are running.
        """
        # SECURITY: asked before each hook, for plugins may be stopped while an operation is under way.
        if not self.manager.initialized:
            self.refuse_unstarted()
        return self.manager.has_hooks_for(step.hook) if step.is_twin else self.manager.is_watched(step.hook)

    def bypassed(self, kind: Kind, target: str) -> None:
        """Say that an operation was performed outside of the guard.

        Raises:
            CoverageError: Hooks are mandatory around it, and coverage is `raise`.
        """
        self._number += 1
        self.ledger.bypassed(f"{self.context.request_id}:{self._number}", kind, target)

    # Extensions.

    def seen_by(self, overlay: Extensions | None) -> Extensions | None:
        """The request's extensions with the slots of one operation over them."""
        return overlaid(self.extensions, overlay)

    def take_extensions(
        self, overlay: Extensions | None, before: Extensions | None, after: Extensions
    ) -> Extensions | None:
        """Keep the slots that plugins changed, with those that parallel operations changed meanwhile.

        Returns:
            The operation's own slots from now on.
        """
        self.extensions, own = taken(self.extensions, overlay, before, after)
        return own


_NO_COVERAGE = Coverage()
