"""What stands around a run of a LangChain agent: the agent's hooks, in nodes of their own before and after it."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from langchain.agents.middleware.types import AgentState, PrivateStateAttr
from langchain_core.messages import AIMessage

from cpex.adapters._langchain_messages import as_dicts, changed_dicts
from cpex.adapters._requests import denial_text
from cpex.framework.errors import PluginViolationError
from cpex.framework.guard import AGENT, Operation, Request, current_request
from cpex.framework.guard.sync import SyncGuard
from cpex.framework.hooks.agents import AgentPreInvokePayload

if TYPE_CHECKING:
    from cpex.framework.manager import PluginManager

__all__ = ["AgentRuns", "RunState"]

MAX_OPEN = 10_000
"""Runs between their hooks; of more, the oldest are given up. One that fails never comes to the hook after it."""
_DENIED = "denied"


# The framework's base is typed as `Any` where it is not installed.
class RunState(AgentState):  # type: ignore[misc]
    """The agent's state, and which run it is of."""

    # mypy: it is a TypedDict only where the framework is installed.
    cpex_run: NotRequired[Annotated[str, PrivateStateAttr]]  # type: ignore[valid-type]


class AgentRuns:
    """The runs that are under way."""

    def __init__(self, guard: PluginManager | SyncGuard, agent_id: str) -> None:
        self._manager = guard.manager if isinstance(guard, SyncGuard) else guard
        self._agent_id = agent_id
        self._open: OrderedDict[str, Operation] = OrderedDict()

    async def before(self, state: Any, request: Request | None = None) -> dict[str, Any] | None:
        """Run the hook before; gives what of the state changes.

        Args:
            request: The open one where there is no event loop.
        """
        request = request or self._request()
        if not request.guards(AGENT):
            return None
        messages = list(state["messages"])
        operation = request.operation(AGENT, self._payload(messages))
        asked = operation.payload.messages
        try:
            ready = await operation.before()
            changed = changed_dicts(messages, _plain(asked), ready.messages)
        except PluginViolationError as denial:
            operation.failed(denial)
            answer = AIMessage(content=denial_text(denial))
            return {"messages": [answer], "jump_to": "end", "cpex_run": _DENIED}
        except BaseException as error:
            operation.failed(error)
            raise
        return {"messages": changed, "cpex_run": self._keep(operation)}

    async def after(self, state: Any, request: Request | None = None) -> dict[str, Any] | None:
        """Run the hook after; gives what of the state changes."""
        run = state.get("cpex_run")
        if run == _DENIED:
            return None
        operation = self._open.pop(run or "", None)
        if operation is None:
            request = request or self._request()
            if not request.guards(AGENT):
                return None
            # Begun in another process, or before plugins stood around runs.
            operation = request.operation(AGENT, self._payload([]))
        last = state["messages"][-1]
        shown = as_dicts([last])
        try:
            operation.request.ledger.check(operation.record, () if run else (step.hook for step in AGENT.before))
            answers = await operation.after(shown)
            changed = changed_dicts([last], shown, answers)
        except PluginViolationError as denial:
            operation.failed(denial)
            # In its place: what was withheld must not stay in the conversation.
            changed = [AIMessage(content=denial_text(denial), id=last.id)]
        except BaseException as error:
            operation.failed(error)
            raise
        return {"messages": changed} if changed else None

    def _request(self) -> Request:
        known = current_request.get()
        return known if known is not None and known.manager is self._manager else self._manager.request()

    def _payload(self, messages: list[Any]) -> AgentPreInvokePayload:
        return AgentPreInvokePayload(agent_id=self._agent_id, messages=as_dicts(messages))

    def _keep(self, operation: Operation) -> str:
        run = uuid.uuid4().hex
        self._open[run] = operation
        while len(self._open) > MAX_OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.failed(TimeoutError("the run did not come to its end"))
        return run


def _plain(messages: list[Any]) -> list[Any]:
    return [each.model_dump() if hasattr(each, "model_dump") else each for each in messages]
