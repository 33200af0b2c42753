"""A model of the OpenAI Agents SDK that is asked between its hooks."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from agents import GuardrailFunctionOutput, InputGuardrail, OutputGuardrail
from agents.exceptions import InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered
from agents.guardrail import InputGuardrailResult, OutputGuardrailResult
from agents.models.interface import Model

from cpex.adapters._requests import request_of
from cpex.adapters._responses import shown, written
from cpex.framework.cmf.message import Message, Role, TextContent
from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.guard import MODEL, Operation, Request, current_request

if TYPE_CHECKING:
    from cpex.framework.manager import PluginManager

__all__ = ["GuardedModel", "Judged", "tripwire"]

_ENDED_BADLY = frozenset({"response.incomplete", "response.failed"})


class Judged:
    """Items of answers that plugins have let pass, as long as somebody holds them."""

    def __init__(self) -> None:
        self._items: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def add(self, items: Sequence[Any]) -> None:
        """Remember them, by themselves and not by what they say."""
        for each in items:
            self._items[id(each)] = each

    def has(self, item: Any) -> bool:
        """Whether it is one of them."""
        return self._items.get(id(item)) is item

    @classmethod
    def by(cls, manager: PluginManager) -> Judged:
        """Those that plugins of a manager have let pass, whichever of its models gave them."""
        return _JUDGED.setdefault(manager, cls())


_JUDGED: WeakKeyDictionary[PluginManager, Judged] = WeakKeyDictionary()


# The framework's base is typed as `Any` where it is not installed.
class GuardedModel(Model):  # type: ignore[misc]
    """A model between `cmf.llm_input` and `cmf.llm_output`."""

    def __init__(self, model: Any, manager: PluginManager, agent: Any = None) -> None:
        """Stand around a model.

        Args:
            model: The model, or a function that gives it when it is first asked.
            agent: Whose model it is, for who handles a denial.
        """
        self._given: Any | Callable[[], Any] = model
        self._manager = manager
        self._agent = agent
        self._judged = Judged.by(manager)

    def __getattr__(self, name: str) -> Any:
        # What the SDK asks of some models beyond the interface, such as whether they can cache prompts.
        if name.startswith("__") or name == "_given":
            raise AttributeError(name)
        return getattr(self._model, name)

    @property
    def _model(self) -> Any:
        if not isinstance(self._given, Model):
            self._given = self._given()
        return self._given

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        """Ask and wait for the whole answer."""
        async with request_of(self._manager) as request:
            if not request.guards(MODEL):
                return await self._model.get_response(system_instructions, input, *args, **kwargs)
            asked = _Asked(system_instructions, input)
            response: Any = None
            told: list[Message] = []

            async def run(ready: list[Message]) -> list[Message]:
                nonlocal response, told
                response = await self._model.get_response(*asked.with_changes(ready), *args, **kwargs)
                told = shown(_dumped(response.output))
                return told

            try:
                answers = await request.perform(MODEL, asked.messages, run, on_denial="raise")
            except PluginViolationError as denial:
                raise tripwire(denial, self._agent, response is not None) from denial
            output = _rewritten(response.output, told, answers)
            self._judged.add(output)
            return response if output is response.output else dataclasses.replace(response, output=output)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Ask, and give the answer in events; none of them before plugins have judged the whole."""
        request, own = self._stream_request()
        if not request.guards(MODEL):
            async with aclosing(self._model.stream_response(system_instructions, input, *args, **kwargs)) as events:
                async for event in events:
                    yield event
            return
        asked = _Asked(system_instructions, input)
        operation = request.operation(MODEL, asked.messages)
        try:
            told = asked.with_changes(await self._before(operation))
            events = await _all(self._model.stream_response(*told, *args, **kwargs))
            for event in await self._after(operation, events):
                yield event
        except BaseException as error:
            operation.failed(error)
            if own:
                request.close(error)
            raise
        if own:
            request.close()

    def _stream_request(self) -> tuple[Request, bool]:
        # Not opened: what a generator sets in its context is seen by whoever iterates over it.
        known = current_request.get()
        if known is not None and known.manager is self._manager:
            return known, False
        return self._manager.request(), True

    async def _before(self, operation: Operation) -> list[Message]:
        try:
            ready: list[Message] = await operation.before()
            return ready
        except PluginViolationError as denial:
            operation.failed(denial)
            raise tripwire(denial, self._agent, answered=False) from denial

    async def _after(self, operation: Operation, events: list[Any]) -> list[Any]:
        last = next((each for each in reversed(events) if getattr(each, "response", None) is not None), None)
        kind = getattr(last, "type", "")
        if last is None or kind in _ENDED_BADLY:
            # The SDK makes an exception of it; what was said so far has not been judged.
            await operation.after([])
            return [_with_output(last, [])] if last is not None else []
        done = [each.item for each in events if getattr(each, "type", "") == "response.output_item.done"]
        said = last.response.output or done
        told = shown(_dumped(said))
        try:
            answers = await operation.after(told)
        except PluginViolationError as denial:
            operation.failed(denial)
            raise tripwire(denial, self._agent, answered=True) from denial
        output = _rewritten(said, told, answers)
        self._judged.add(output)
        # Rewritten ones have no pieces: those would tell what is not to be told.
        return events if output is said else [_with_output(last, output)]

    async def close(self) -> None:
        """Release what the model holds."""
        await self._model.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._model._cleanup_on_run_end(owner)

    def get_retry_advice(self, request: Any) -> Any:
        """What the model knows of how to ask again."""
        return self._model.get_retry_advice(request)


class _Asked:
    """What a model is asked: the instructions, then every item, each as a message of its own."""

    def __init__(self, system: str | None, input: Any) -> None:
        self._system = system
        self._input = input
        self._items = [{"role": "user", "content": input}] if isinstance(input, str) else [dict(each) for each in input]
        instructions = [] if system is None else [Message(role=Role.SYSTEM, content=[TextContent(text=system)])]
        self.messages = [*instructions, *shown(self._items)]

    def with_changes(self, after: Sequence[Message]) -> tuple[str | None, Any]:
        """The instructions and the input with what plugins made of them."""
        if len(after) != len(self.messages):
            raise GuardError("a plugin changed the number of messages; let it change their content")
        if all(old is new for old, new in zip(self.messages, after, strict=True)):
            return self._system, self._input
        system, rest = self._system, list(zip(self.messages, after, strict=True))
        if system is not None:
            old, new = rest.pop(0)
            system = system if old is new else written({"content": system}, new)["content"]
        items = [item if old is new else written(item, new) for item, (old, new) in zip(self._items, rest, strict=True)]
        return system, items[0]["content"] if isinstance(self._input, str) else items


def _dumped(output: Sequence[Any]) -> list[dict[str, Any]]:
    return [each.model_dump(exclude_unset=True) for each in output]


def _rewritten(output: Sequence[Any], before: Sequence[Message], after: Sequence[Message]) -> Sequence[Any]:
    """The items of an answer with those that plugins changed; the same object without any."""
    if len(before) != len(after):
        raise GuardError("a plugin changed the number of messages; let it change their content")
    if all(old is new for old, new in zip(before, after, strict=True)):
        return output
    return [
        item if old is new else type(item).model_validate(written(item.model_dump(exclude_unset=True), new))
        for item, old, new in zip(output, before, after, strict=True)
    ]


async def _all(events: Any) -> list[Any]:
    async with aclosing(events) as running:
        return [event async for event in running]


def _with_output(event: Any, output: Sequence[Any]) -> Any:
    response = event.response.model_copy(update={"output": list(output)})
    return event.model_copy(update={"response": response})


def tripwire(denial: PluginViolationError, agent: Any, answered: bool) -> Exception:
    """What the SDK has for content that may not pass: the exception of a guardrail, whose output is the violation."""
    output = GuardrailFunctionOutput(output_info=denial.violation, tripwire_triggered=True)
    if answered:
        guardrail = OutputGuardrail(guardrail_function=_never, name="cpex")
        result = OutputGuardrailResult(guardrail=guardrail, agent_output=None, agent=agent, output=output)
        error: Exception = OutputGuardrailTripwireTriggered(result)
    else:
        asking = InputGuardrail(guardrail_function=_never, name="cpex")
        error = InputGuardrailTripwireTriggered(InputGuardrailResult(guardrail=asking, output=output))
    return error


def _never(*args: Any) -> Any:
    raise AssertionError("a guardrail that only tells of a denial was called")
