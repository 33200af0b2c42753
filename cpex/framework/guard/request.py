"""One request of a host: who asks, what plugins keep, and a call for each kind of operation."""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypedDict, Unpack

from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.extensions import Extensions
from cpex.framework.guard.contexts import Contexts
from cpex.framework.guard.ledger import Coverage, Ledger
from cpex.framework.guard.operation import Operation
from cpex.framework.guard.operations import AGENT, MODEL, PROMPT, RESOURCE, TOOL, Kind, Step
from cpex.framework.hooks.agents import AgentPreInvokePayload
from cpex.framework.hooks.prompts import PromptPrehookPayload
from cpex.framework.hooks.resources import ResourcePreFetchPayload
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.models.context import GlobalContext, PluginContextTable, UserContext
from cpex.framework.models.coverage import CoverageConfig
from cpex.framework.models.result import PluginResult, PluginViolation
from cpex.framework.utils import StructuredData

if TYPE_CHECKING:
    from types import TracebackType

    from cpex.framework.cmf.message import Message

__all__ = ["Guarded", "OnDenial", "Request", "RequestFacts", "current_request"]

OnDenial = Literal["raise", "return"]
"""What a denial is to the caller: a `PluginViolationError`, or the `PluginViolation` in the place of the result."""

Resolve = Callable[[str], Callable[..., Any]]
"""Finds what performs an operation of another name, when a plugin rewrote the name."""

current_request: ContextVar[Request | None] = ContextVar("cpex_request", default=None)
"""The request that is open in this context; decorated functions run in it."""


class Guarded(Protocol):
    """What the guard needs of a manager."""

    @property
    def initialized(self) -> bool:
        """Whether plugins are running."""

    @property
    def config(self) -> Any:
        """The configuration, if there is one."""

    @property
    def generation(self) -> int:
        """Grows whenever a plugin comes or goes."""

    def has_hooks_for(self, hook_type: str) -> bool:
        """Whether a plugin handles the hook."""

    def is_watched(self, hook_type: str) -> bool:
        """Whether a call of the hook would concern any plugin."""

    async def invoke_hook(
        self,
        hook_type: str,
        payload: Any,
        global_context: GlobalContext,
        local_contexts: PluginContextTable | None = None,
        violations_as_exceptions: bool = False,
        extensions: Extensions | None = None,
    ) -> tuple[PluginResult[Any], PluginContextTable | None]:
        """Call a hook."""


class RequestFacts(TypedDict, total=False):
    """What a host says of a request; everything may be left out."""

    user: str | dict[str, Any] | None
    """Who asks: an id or e-mail address, or a dict with one."""
    user_context: UserContext | None
    tenant_id: str | None
    server_id: str | None
    """The server whose tools are called; the namespace of tools in `cmf.*` messages."""
    session_id: str | None
    """The conversation; goes to `metadata["session_id"]` of the global context."""
    request_id: str
    """Made up when it is left out: 32 hexadecimal digits."""
    content_type: str | None
    metadata: dict[str, Any]
    context: GlobalContext
    """A finished context, instead of all the above."""
    contexts: PluginContextTable | None
    """What plugins kept in earlier hooks of the request that the host called itself."""
    extensions: Extensions | None
    on_denial: OnDenial
    coverage: CoverageConfig | None
    """Instead of the configuration's `coverage`."""


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
            ValueError: `context` was given beside one of its parts, or a mandatory hook stands around no operation.
        """
        self.manager = manager
        self.context = _context(facts)
        self.extensions = facts.get("extensions")
        self.on_denial: OnDenial = facts.get("on_denial", "raise")
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
            return await _awaited(call(**(args or {})))
        payload = ToolPreInvokePayload(name=name, args=dict(args or {}))
        perform = _performer("tool", "name", name, call, resolve, lambda ready: ((), ready.args or {}))
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
            return await _awaited(render(**(args or {})))
        payload = PromptPrehookPayload(prompt_id=prompt_id, args=dict(args or {}))
        perform = _performer("prompt", "prompt_id", prompt_id, render, resolve, lambda ready: ((), ready.args or {}))
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
            return await _awaited(read(uri))
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
            return await _awaited(invoke(messages, **settings))
        payload = AgentPreInvokePayload(agent_id=agent_id, messages=list(messages), **settings)
        perform = _performer("agent", "agent_id", agent_id, invoke, resolve, _agent_call(list(messages), settings))
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
            return await _awaited(invoke(list(messages)))
        single = False

        async def ask(ready: list[Message]) -> list[Message]:
            nonlocal single
            answer = await _awaited(invoke(ready))
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
        if not self.guards(kind):
            return await _awaited(run(payload))
        operation = self.operation(kind, payload, extensions=extensions)
        try:
            async with operation:
                ready = await operation.before()
                with operation.being_performed():
                    result = await _awaited(run(ready))
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
        """
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
            _refuse_unstarted(manager)
        generation = manager.generation
        if generation != self._generation:
            self._generation, self._guarded = generation, {}
        known = self._guarded.get(kind.name)
        if known is None:
            steps = (*kind.before, *kind.after)
            known = self._guarded[kind.name] = self.ledger.coverage.of(kind) or any(map(self.calls, steps))
        return known

    def calls(self, step: Step) -> bool:
        """Whether a step's hook is called: it concerns a plugin, and a twin is handled by one."""
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
        if overlay is None or self.extensions is None:
            return overlay if overlay is not None else self.extensions
        return self.extensions.model_copy(update=_filled(overlay))

    def take_extensions(
        self, overlay: Extensions | None, before: Extensions | None, after: Extensions
    ) -> Extensions | None:
        """Keep the slots that plugins changed, with those that parallel operations changed meanwhile.

        Returns:
            The operation's own slots from now on.
        """
        old = before if before is not None else Extensions()
        changed = {
            name: getattr(after, name)
            for name in Extensions.model_fields
            if getattr(after, name) is not getattr(old, name)
        }
        own = {name: changed.pop(name) for name in list(changed) if overlay and getattr(overlay, name) is not None}
        mine = self.extensions if self.extensions is not None else Extensions()
        self.extensions = mine.model_copy(
            update={name: _joined(getattr(mine, name), getattr(old, name), new) for name, new in changed.items()}
        )
        return overlay.model_copy(update=own) if overlay is not None and own else overlay


def _context(facts: RequestFacts) -> GlobalContext:
    parts = {name: facts[name] for name in _PARTS if name in facts}  # type: ignore[literal-required]
    if "context" in facts:
        if parts:
            raise ValueError(f"give a request either `context` or its parts ({', '.join(parts)}), not both")
        return facts["context"]
    session = parts.pop("session_id", None)
    parts.setdefault("request_id", uuid.uuid4().hex)
    if session is not None:
        parts["metadata"] = {**parts.get("metadata", {}), "session_id": session}
    return GlobalContext(**{name: value for name, value in parts.items() if value is not None})


_PARTS = ("request_id", "user", "user_context", "tenant_id", "server_id", "session_id", "content_type", "metadata")
_NO_COVERAGE = Coverage()


def _refuse_unstarted(manager: Guarded) -> None:
    plugins = (manager.config.plugins if manager.config is not None else None) or []
    if plugins:
        raise GuardError(
            f"no plugins are running, so nothing would guard the operation, and {len(plugins)} are configured; "
            "`await manager.initialize()` first, and do not use a request after `shutdown()`"
        )


async def _awaited(result: Any) -> Any:
    # What it nearly always is, some times faster to tell.
    if type(result) is CoroutineType or inspect.isawaitable(result):
        return await result
    return result


def _performer(
    kind: str,
    field: str,
    name: str,
    call: Callable[..., Any],
    resolve: Resolve | None,
    arguments: Callable[[Any], tuple[Sequence[Any], Mapping[str, Any]]],
) -> Callable[[Any], Any]:
    """Calls what performs an operation, or its replacement where a plugin rewrote the name."""

    def perform(ready: Any) -> Any:
        named = getattr(ready, field)
        target = call
        if named != name:
            if resolve is None:
                raise GuardError(
                    f"a plugin rewrote {kind} `{name[:200]}` to `{str(named)[:200]}`, and the host gave no `resolve` "
                    "to find it with; pass `resolve=`, or do not let plugins write the name (a hook policy does that)"
                )
            target = resolve(named)
        positional, named_arguments = arguments(ready)
        return target(*positional, **named_arguments)

    return perform


_AGENT_SETTINGS = ("tools", "model", "system_prompt", "parameters")


def _agent_call(
    messages: list[Any], settings: Mapping[str, Any]
) -> Callable[[Any], tuple[Sequence[Any], Mapping[str, Any]]]:
    def arguments(ready: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        # Dicts were made readable by attribute for the plugins; the host gets dicts.
        as_dicts = any(isinstance(each, Mapping) for each in messages)
        told = [each.model_dump() if as_dicts and isinstance(each, StructuredData) else each for each in ready.messages]
        values = {name: getattr(ready, name) for name in _AGENT_SETTINGS}
        return (told,), {name: value for name, value in values.items() if name in settings or value}

    return arguments


def _filled(extensions: Extensions) -> dict[str, Any]:
    values = {name: getattr(extensions, name) for name in Extensions.model_fields}
    return {name: value for name, value in values.items() if value is not None}


def _joined(mine: Any, old: Any, new: Any) -> Any:
    """A slot that an operation changed from `old` to `new`, while another may have changed it to `mine`."""
    if mine is old or mine is None or new is None:
        return new
    if (labels := getattr(mine, "labels", None)) is not None:
        # Labels only grow: what one operation tainted stays so, whichever ended first.
        return new.model_copy(update={"labels": new.labels | labels})
    if isinstance(mine, dict) and isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        gone = before.keys() - new.keys()
        written = {key: value for key, value in new.items() if key not in before or before[key] is not value}
        return {key: value for key, value in mine.items() if key not in gone} | written
    if (chain := getattr(mine, "chain", None)) is not None:
        known = len(old.chain) if old is not None else 0
        for hop in new.chain[known:]:
            if hop not in chain:
                mine = mine.with_new_hop(hop)
        return mine
    return new
