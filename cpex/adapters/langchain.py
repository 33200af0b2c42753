"""The guard in LangChain agents: middleware around their tools, their model and their runs. Needs `langchain`.

Source: docs/adapters/langchain.md; https://docs.langchain.com/oss/python/langchain/middleware.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from cpex.adapters._extras import needs

with needs("langchain"):
    from langchain.agents.middleware import AgentMiddleware, hook_config
    from langchain.agents.middleware.types import ModelResponse
    from langchain_core.messages import AIMessage, ToolMessage
    from langgraph.types import Command

    from cpex.adapters._langchain_messages import changed, common
    from cpex.adapters._langchain_run import AgentRuns, RunState

from cpex.adapters._requests import denial_text, request_of, sync_request_of
from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.guard import MODEL, TOOL
from cpex.framework.guard.sync import SyncGuard, current_sync_request
from cpex.framework.hooks.tools import ToolPreInvokePayload

if TYPE_CHECKING:
    from cpex.framework.cmf.message import Message
    from cpex.framework.guard import Request
    from cpex.framework.manager import PluginManager

__all__ = ["GuardMiddleware"]


# The framework's base is typed as `Any` where it is not installed.
class GuardMiddleware(AgentMiddleware):  # type: ignore[misc]
    """Middleware for `create_agent`.

        agent = create_agent(model, tools=[...], middleware=[GuardMiddleware(manager)])

    Operations belong to the request that is open around `agent.ainvoke(...)`, else each to one of its own. A denied
    tool answers with a `ToolMessage` whose status is `error`, which the model reads; a denied model call with an
    `AIMessage` that says why, which ends the agent's turn; so does a denied run. A plugin that fails under
    `on_error: fail` is an exception.
    """

    state_schema = RunState

    def __init__(self, guard: PluginManager | SyncGuard, *, agent_id: str = "agent") -> None:
        """Make it.

        Args:
            guard: A manager for `ainvoke` and `astream`, a `SyncGuard` for `invoke` and `stream`.
            agent_id: What hooks around runs call the agent.
        """
        super().__init__()
        self._guard = guard
        self._runs = AgentRuns(guard, agent_id)

    # mypy: what decorates is typed as `Any` where the framework is not installed.
    @hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Run `agent_pre_invoke`."""
        self._manager()
        return await self._runs.before(state)

    # mypy: as above.
    @hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Run `agent_pre_invoke`, without an event loop."""
        changes: dict[str, Any] | None = self._sync_guard().run(self._runs.before(state, self._open_request()))
        return changes

    async def aafter_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Run `agent_post_invoke`."""
        self._manager()
        return await self._runs.after(state)

    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Run `agent_post_invoke`, without an event loop."""
        changes: dict[str, Any] | None = self._sync_guard().run(self._runs.after(state, self._open_request()))
        return changes

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call a tool between its hooks."""
        call = _ToolCall(request)

        async def run(ready: Any) -> Any:
            return call.shown(await handler(call.ready(ready)))

        try:
            async with request_of(self._manager()) as open_request:
                return call.answered(await open_request.perform(TOOL, call.payload, run, on_denial="raise"))
        except PluginViolationError as denial:
            return call.denied(denial)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Call a tool between its hooks, without an event loop."""
        call = _ToolCall(request)

        def run(ready: Any) -> Any:
            return call.shown(handler(call.ready(ready)))

        try:
            with sync_request_of(self._sync_guard()) as open_request:
                return call.answered(open_request.perform(TOOL, call.payload, run, on_denial="raise"))
        except PluginViolationError as denial:
            return call.denied(denial)

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask the model between its hooks."""
        async with request_of(self._manager()) as open_request:
            if not open_request.guards(MODEL):
                return await handler(request)
            call = _ModelCall(request)

            async def run(ready: Any) -> Any:
                return call.shown(await handler(call.ready(ready)))

            try:
                return call.answered(await open_request.perform(MODEL, call.messages, run, on_denial="raise"))
            except PluginViolationError as denial:
                return _refusal(denial)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Ask the model between its hooks, without an event loop."""
        with sync_request_of(self._sync_guard()) as open_request:
            if not open_request.request.guards(MODEL):
                return handler(request)
            call = _ModelCall(request)

            def run(ready: Any) -> Any:
                return call.shown(handler(call.ready(ready)))

            try:
                return call.answered(open_request.perform(MODEL, call.messages, run, on_denial="raise"))
            except PluginViolationError as denial:
                return _refusal(denial)

    def _manager(self) -> PluginManager:
        if isinstance(self._guard, SyncGuard):
            raise GuardError(
                "the agent runs on an event loop and its guard does not; use `GuardMiddleware(manager)` for `ainvoke`"
            )
        return self._guard

    def _open_request(self) -> Request | None:
        known = current_sync_request.get()
        return known.request if known is not None and known.request.manager is self._sync_guard().manager else None

    def _sync_guard(self) -> SyncGuard:
        if not isinstance(self._guard, SyncGuard):
            raise GuardError(
                "the agent runs without an event loop and its guard needs one; use `ainvoke`, or "
                "`GuardMiddleware(SyncGuard(manager))`"
            )
        return self._guard


class _ToolCall:
    """One call of a tool, there and back."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._call = request.tool_call
        self.payload = ToolPreInvokePayload(name=self._call["name"], args=dict(self._call["args"] or {}))
        self._result: Any = None
        self._shown: Any = None

    def ready(self, ready: Any) -> Any:
        """The request with what plugins made of its arguments."""
        if ready.name != self._call["name"]:
            raise GuardError(
                f"a plugin rewrote tool `{self._call['name']}` to `{ready.name[:200]}`, and the agent can only run "
                "what the model asked for; deny it instead, so that the model asks again"
            )
        if ready is self.payload:
            return self._request
        return self._request.override(tool_call={**self._call, "args": ready.args or {}})

    def shown(self, result: Any) -> Any:
        """What plugins see of a result: the content of a message, the update of a command."""
        self._result = result
        self._shown = result.update if isinstance(result, Command) else result.content
        return self._shown

    def answered(self, answer: Any) -> Any:
        """The result with what plugins made of it."""
        if answer is self._shown:
            return self._result
        if isinstance(self._result, Command):
            return dataclasses.replace(self._result, update=answer)
        content = answer if isinstance(answer, str | list) else str(answer)
        return self._result.model_copy(update={"content": content})

    def denied(self, denial: PluginViolationError) -> Any:
        """What the model reads of a denial."""
        return ToolMessage(
            content=denial_text(denial), name=self._call["name"], tool_call_id=self._call["id"], status="error"
        )


class _ModelCall:
    """One call of a model, there and back."""

    def __init__(self, request: Any) -> None:
        self._request = request
        system = request.system_message
        self._asked = [*([system] if system is not None else []), *request.messages]
        self.messages = common(self._asked)
        self._response: Any = None
        self._answers: list[Message] = []

    def ready(self, ready: list[Message]) -> Any:
        """The request with what plugins made of its messages."""
        asked = changed(self._asked, self.messages, ready)
        if asked is self._asked:
            return self._request
        if self._request.system_message is None:
            return self._request.override(messages=asked)
        return self._request.override(system_message=asked[0], messages=asked[1:])

    def shown(self, response: Any) -> list[Message]:
        """What plugins see of a response."""
        self._response = response
        self._answers = common(response.result)
        return self._answers

    def answered(self, answers: list[Message]) -> Any:
        """The response with what plugins made of it."""
        told = changed(self._response.result, self._answers, answers)
        if told is self._response.result:
            return self._response
        if self._response.structured_response is not None:
            raise GuardError(
                "a plugin rewrote the model's words, and the structured response that was read from them would still "
                "say the old ones; deny it, or rewrite what is made of it"
            )
        return dataclasses.replace(self._response, result=told)


def _refusal(denial: PluginViolationError) -> Any:
    return ModelResponse(result=[AIMessage(content=denial_text(denial))])
