"""What stands around a run of an agent of the OpenAI Agents SDK: the agent's hooks, as guardrails of its own kind."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from agents import AgentHooks, GuardrailFunctionOutput, InputGuardrail, OutputGuardrail

from cpex.adapters._openai_model import Judged
from cpex.adapters._requests import request_of
from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.guard import AGENT, MODEL, Operation
from cpex.framework.guard.operations import Step
from cpex.framework.hooks.agents import AgentPreInvokePayload

if TYPE_CHECKING:
    from cpex.framework.manager import PluginManager

__all__ = ["Runs", "Watch"]


class Runs:
    """The runs that are under way, from `agent_pre_invoke` to `agent_post_invoke`.

    The SDK calls input guardrails of the agent that a run starts with, and output guardrails of the one that it ends
    with; both belong to one operation, that of the first.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._open: WeakKeyDictionary[Any, tuple[Operation, Any]] = WeakKeyDictionary()
        self.before = InputGuardrail(guardrail_function=self._before, name="cpex", run_in_parallel=False)
        self.after = OutputGuardrail(guardrail_function=self._after, name="cpex")

    async def _before(self, context: Any, agent: Any, input: Any) -> Any:
        async with request_of(self._manager) as request:
            if not request.guards(AGENT):
                return _passed()
            messages = [{"role": "user", "content": input}] if isinstance(input, str) else list(input)
            system = agent.instructions if isinstance(agent.instructions, str) else None
            tools = [each.name for each in agent.tools]
            payload = AgentPreInvokePayload(agent_id=agent.name, messages=messages, tools=tools, system_prompt=system)
            operation = request.operation(AGENT, payload)
            try:
                if await operation.before() is not payload:
                    raise _rewritten(agent, "was asked", "cmf.llm_input")
            except PluginViolationError as denial:
                operation.failed(denial)
                return _denied(denial)
            except BaseException as error:
                operation.failed(error)
                raise
        # A run that fails never comes to its output guardrails; its context goes with it.
        end = weakref.finalize(context, operation.failed, RuntimeError("the run did not come to its end"))
        end.atexit = False
        self._open[context] = (operation, end)
        return _passed()

    async def _after(self, context: Any, agent: Any, output: Any) -> Any:
        known = self._open.pop(context, None)
        if known is not None:
            operation, end = known
            end.detach()
            return await self._judged(operation, agent, output)
        # A run that was interrupted and goes on has another context, and the SDK asks no input guardrail again.
        async with request_of(self._manager) as request:
            if not request.guards(AGENT):
                return _passed()
            operation = request.operation(AGENT, AgentPreInvokePayload(agent_id=agent.name, messages=[]))
            return await self._judged(operation, agent, output, before=AGENT.before)

    async def _judged(self, operation: Operation, agent: Any, output: Any, before: tuple[Step, ...] = ()) -> Any:
        """What comes of the end of a run.

        Args:
            before: Steps that did not run in this operation; one that is mandatory is a gap.
        """
        messages = [{"role": "assistant", "content": output if isinstance(output, str) else str(output)}]
        try:
            operation.request.ledger.check(operation.record, (step.hook for step in before))
            if await operation.after(messages) is not messages:
                raise _rewritten(agent, "answered", "cmf.llm_output")
        except PluginViolationError as denial:
            operation.failed(denial)
            return _denied(denial)
        except BaseException as error:
            operation.failed(error)
            raise
        return _passed()


def _passed() -> Any:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


def _denied(denial: PluginViolationError) -> Any:
    return GuardrailFunctionOutput(output_info=denial.violation, tripwire_triggered=True)


def _rewritten(agent: Any, what: str, hook: str) -> GuardError:
    return GuardError(
        f"a plugin rewrote what agent `{agent.name[:200]}` {what}, and guardrails of the SDK can only let pass or "
        f"deny; rewrite it in `{hook}`"
    )


def _passed_on(name: str) -> Any:
    async def moment(self: Watch, *args: Any, **kwargs: Any) -> None:
        if self.inner is not None:
            await getattr(self.inner, name)(*args, **kwargs)

    return moment


# The framework's base is typed as `Any` where it is not installed.
class Watch(AgentHooks):  # type: ignore[misc]
    """The agent's own hooks, and a look at who has answered: a run may put another model in the guarded one's place."""

    def __init__(self, manager: PluginManager, inner: Any) -> None:
        self.inner = inner
        self._manager = manager
        self._judged = Judged.by(manager)

    on_start = _passed_on("on_start")
    on_end = _passed_on("on_end")
    on_handoff = _passed_on("on_handoff")
    on_tool_start = _passed_on("on_tool_start")
    on_tool_end = _passed_on("on_tool_end")
    on_llm_start = _passed_on("on_llm_start")

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        """Refuse an answer that no plugin has judged.

        Raises:
            CoverageError: Hooks are mandatory around models, and coverage is `raise`.
            GuardError: Plugins stand around models.
        """
        async with request_of(self._manager) as request:
            if request.guards(MODEL) and not all(map(self._judged.has, response.output)):
                request.bypassed(MODEL, agent.name)
                raise GuardError(
                    f"agent `{agent.name[:200]}` was answered by a model that nothing guards; `RunConfig(model=...)` "
                    "replaces the guarded one: give it `guard_model(model, manager)`, or leave it out"
                )
        if self.inner is not None:
            await self.inner.on_llm_end(context, agent, response)
