"""The guard in agents of the OpenAI Agents SDK: their function tools, models and runs. Needs the extra `openai-agents`.

Source: docs/adapters/openai_agents.md; https://openai.github.io/openai-agents-python/tools/.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from cpex.adapters._extras import needs

with needs("openai-agents"):
    from agents import Agent, FunctionTool, MultiProvider
    from agents.models.interface import Model

    from cpex.adapters._openai_model import GuardedModel
    from cpex.adapters._openai_run import Runs, Watch

from cpex.adapters._requests import denial_text, request_of
from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.guard import TOOL
from cpex.framework.hooks.tools import ToolPreInvokePayload

if TYPE_CHECKING:
    from cpex.framework.manager import PluginManager

__all__ = ["guard_agent", "guard_model", "guard_tools"]


def guard_agent(
    agent: Any,
    manager: PluginManager,
    *,
    unguarded: Collection[str] = (),
    model_provider: Any = None,
    runs: bool = True,
) -> Any:
    """A copy of an agent whose tools, model and runs are guarded, and with it the agents that it hands over to.

    Denials: a tool answers with the reason, which the model reads; what goes to the model or comes from it, and a run
    as a whole, trip a guardrail, whose `output_info` is the violation.

    Args:
        unguarded: Names of tools and MCP servers that may stay outside of the guard: it can only stand around function
            tools. Tools that a provider runs itself are among them.
        model_provider: Finds models by name; the SDK's own unless given. The one of a `RunConfig` is not asked.
        runs: Whether agent hooks stand around runs. They are guardrails, which the SDK does not let stand beside a
            conversation that its server keeps; with `False` no plugin hears of runs.

    Raises:
        GuardError: The agent, or one that it hands over to, has tools of other kinds; all are named.
    """
    return _Agents(manager, frozenset(unguarded), model_provider, runs).guarded(agent)


def guard_model(model: Any, manager: PluginManager) -> Any:
    """A model that is asked between `cmf.llm_input` and `cmf.llm_output`, such as for `RunConfig(model=...)`."""
    return GuardedModel(model, manager)


def guard_tools(tools: Iterable[Any], manager: PluginManager, *, unguarded: Collection[str] = ()) -> list[Any]:
    """Copies of function tools that run between their hooks; `unguarded` as for `guard_agent`.

    Operations belong to the request that is open around `Runner.run(...)`, else each to one of its own. A denied call
    answers with the reason, which the model reads, as a rejecting tool guardrail does. A plugin that fails under
    `on_error: fail` ends the run.

    Raises:
        GuardError: There are tools of other kinds; all are named.
    """
    listed = list(tools)
    outside = [each.name for each in listed if not isinstance(each, FunctionTool) and each.name not in unguarded]
    if outside:
        raise _outside(outside)
    return [_guarded_tool(each, manager) if isinstance(each, FunctionTool) else each for each in listed]


class _Agents:
    """The agents that were copied so far: agents may hand over in circles."""

    def __init__(self, manager: PluginManager, unguarded: frozenset[str], provider: Any, runs: bool) -> None:
        self._manager = manager
        self._unguarded = unguarded
        self._provider = provider
        around = Runs(manager)
        self._before, self._after = ([around.before], [around.after]) if runs else ([], [])
        self._done: dict[int, Any] = {}

    def guarded(self, agent: Any) -> Any:
        if id(agent) in self._done:
            return self._done[id(agent)]
        if servers := [each.name for each in agent.mcp_servers if each.name not in self._unguarded]:
            raise _outside(servers)
        tools = guard_tools(agent.tools, self._manager, unguarded=self._unguarded)
        own = self._done[id(agent)] = agent.clone(
            tools=tools,
            model=GuardedModel(self._model(agent.model), self._manager, agent),
            hooks=Watch(self._manager, agent.hooks),
            # First: what they deny, no other one need look at.
            input_guardrails=[*self._before, *agent.input_guardrails],
            output_guardrails=[*agent.output_guardrails, *self._after],
        )
        # What goes with a model's name; a clone drops it with the name.
        own.model_settings = agent.model_settings
        own.handoffs = [self._handoff(each) for each in agent.handoffs]
        return own

    def _model(self, model: Any) -> Any:
        if isinstance(model, Model):
            return model

        def found() -> Any:
            # Looked for when it is asked: providers want their keys.
            if self._provider is None:
                self._provider = MultiProvider()
            return self._provider.get_model(model)

        return found

    def _handoff(self, target: Any) -> Any:
        if isinstance(target, Agent):
            return self.guarded(target)
        if getattr(target, "agent_name", None) in self._unguarded:
            return target
        # Whom such an object hands over to is known to the function in it alone.
        raise GuardError(
            f"the handoff to `{getattr(target, 'agent_name', '?')}` leads to an agent that cannot be looked into; "
            "guard that agent, build the handoff of it, and name it in `unguarded`"
        )


def _outside(names: list[str]) -> GuardError:
    named = ", ".join(f"`{name}`" for name in names)
    return GuardError(
        f"the guard cannot stand around {named}: only function tools run through it; "
        "name them in `unguarded` if they may stay outside, and guard MCP servers where they are"
    )


def _guarded_tool(tool: Any, manager: PluginManager) -> Any:
    invoke = tool.on_invoke_tool

    async def guarded(context: Any, arguments: str) -> Any:
        args = _arguments(arguments)
        if args is None:
            return "denied: the arguments are no JSON object"
        payload = ToolPreInvokePayload(name=tool.name, args=args)

        async def run(ready: Any) -> Any:
            if ready.name != tool.name:
                raise GuardError(
                    f"a plugin rewrote tool `{tool.name}` to `{ready.name[:200]}`, and the agent can only run what the "
                    "model asked for; deny it instead, so that the model asks again"
                )
            if ready is payload:
                return await invoke(context, arguments)
            text = json.dumps(ready.args or {})
            return await invoke(_with_arguments(context, text), text)

        try:
            async with request_of(manager) as request:
                return await request.perform(TOOL, payload, run, on_denial="raise")
        except PluginViolationError as denial:
            return denial_text(denial)

    own = copy.copy(tool)
    own.on_invoke_tool = guarded
    return own


def _arguments(text: str) -> dict[str, Any] | None:
    """The arguments by name; `None` for what plugins could not judge, whatever a tool might read in it."""
    try:
        args = json.loads(text) if text.strip() else {}
    except ValueError:
        return None
    return args if isinstance(args, dict) else None


def _with_arguments(context: Any, text: str) -> Any:
    """The tool's context, which tells of its arguments as well."""
    if not hasattr(context, "tool_arguments"):
        return context
    own = copy.copy(context)
    own.tool_arguments = text
    return own
