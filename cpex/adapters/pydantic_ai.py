"""The guard in agents of pydantic-ai: a capability around their tools, models and runs. Needs the extra `pydantic-ai`.

Source: docs/adapters/pydantic_ai.md; https://pydantic.dev/docs/ai/capabilities/overview/.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cpex.adapters._extras import needs

with needs("pydantic-ai"):
    from pydantic_ai import UserPromptNode
    from pydantic_ai import messages as pa
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.exceptions import ToolFailed

    from cpex.adapters._pydantic_ai_run import UNCHANGED, answer_of, payload_of, prompt_of, result_with

from cpex.adapters._requests import denial_text, request_of
from cpex.framework.cmf.message import (
    ContentPart,
    Message,
    OpaqueContentPart,
    Role,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
    Unknown,
)
from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.guard import AGENT, MODEL, TOOL, current_request
from cpex.framework.hooks.tools import ToolPreInvokePayload

if TYPE_CHECKING:
    from cpex.framework.manager import PluginManager

__all__ = ["GuardCapability"]


# The framework's base is typed as `Any` where it is not installed.
class GuardCapability(AbstractCapability[Any]):  # type: ignore[misc]
    """A capability for `Agent`.

        agent = Agent(model, capabilities=[GuardCapability(manager)])

    Operations belong to the request that is open around `agent.run(...)`, else each to one of its own. A denied tool is
    a failure that the model reads; a denied model call or run ends the run with the `PluginViolationError`. A plugin
    that fails under `on_error: fail` ends the run as well.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._prompt: Any = UNCHANGED

    async def for_run(self, ctx: Any) -> Any:
        """A copy for one run, which keeps the prompt that plugins left."""
        return copy.copy(self)

    async def wrap_run(self, ctx: Any, *, handler: Callable[[], Awaitable[Any]]) -> Any:
        """Run the agent between its hooks.

        Raises:
            PluginViolationError: A plugin denied the run or its answer.
            PluginError: A plugin failed, and its `on_error` is `fail`.
            GuardError: A plugin changed the number of the agent's messages.
        """
        known = current_request.get()
        # Not opened: the framework carries what is set here over to whoever runs the agent.
        request = known if known is not None and known.manager is self._manager else self._manager.request()
        if not request.guards(AGENT):
            return await handler()
        payload = payload_of(ctx)
        result: Any = None
        told: dict[str, Any] = {}

        async def run(ready: Any) -> list[Any]:
            nonlocal result, told
            self._prompt = prompt_of(ctx, payload, ready)
            result = await handler()
            told = answer_of(result)
            return [told]

        answers = await request.perform(AGENT, payload, run, on_denial="raise")
        if len(answers) != 1:
            raise GuardError("a plugin changed the number of an agent's messages; let it change their content")
        return result_with(result, told, answers[0])

    async def before_node_run(self, ctx: Any, *, node: Any) -> Any:
        """Put the prompt that plugins left where the agent begins."""
        if self._prompt is UNCHANGED or not isinstance(node, UserPromptNode):
            return node
        return dataclasses.replace(node, user_prompt=self._prompt)

    async def wrap_tool_execute(
        self, ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any], handler: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Call a tool between its hooks.

        Raises:
            ToolFailed: A plugin denied it; the model reads why.
            PluginError: A plugin failed, and its `on_error` is `fail`.
            GuardError: A plugin rewrote the tool's name.
        """
        payload = ToolPreInvokePayload(name=call.tool_name, args=dict(args))

        async def run(ready: Any) -> Any:
            if ready.name != call.tool_name:
                raise GuardError(
                    f"a plugin rewrote tool `{call.tool_name}` to `{ready.name[:200]}`, and the agent can only run "
                    "what the model asked for; deny it instead, so that the model asks again"
                )
            return await handler(ready.args or {})

        try:
            async with request_of(self._manager) as request:
                return await request.perform(TOOL, payload, run, on_denial="raise")
        except PluginViolationError as denial:
            raise ToolFailed(denial_text(denial)) from denial

    async def wrap_model_request(
        self, ctx: Any, *, request_context: Any, handler: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Ask the model between its hooks.

        Raises:
            PluginViolationError: A plugin denied what was asked or answered.
            PluginError: A plugin failed, and its `on_error` is `fail`.
            GuardError: A plugin made a part into something that it cannot be given back as.
        """
        async with request_of(self._manager) as request:
            if not request.guards(MODEL):
                return await handler(request_context)
            asked = _Asked(request_context)
            response: Any = None
            told: list[Message] = []

            async def run(ready: list[Message]) -> list[Message]:
                nonlocal response, told
                response = await handler(asked.with_changes(ready))
                told = [_shown(part) for part in response.parts]
                return told

            answers = await request.perform(MODEL, asked.messages, run, on_denial="raise")
            parts = _changed(response.parts, told, answers)
            return response if parts is response.parts else dataclasses.replace(response, parts=parts)


class _Asked:
    """What a model is asked: the instructions, then every part of every message, each as a message of its own."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._instructions = list(context.model_request_parameters.instruction_parts or [])
        parts = [*self._instructions, *(part for message in context.messages for part in message.parts)]
        self.messages = [_shown(part) for part in parts]

    def with_changes(self, after: Sequence[Message]) -> Any:
        """The context with what plugins made of it."""
        if all(old is new for old, new in zip(self.messages, after, strict=True)):
            return self._context
        pairs = iter(zip(self.messages, after, strict=True))
        instructions = _taken(self._instructions, pairs)
        messages = []
        for message in self._context.messages:
            parts = _taken(message.parts, pairs)
            messages.append(message if parts is message.parts else dataclasses.replace(message, parts=parts))
        context = dataclasses.replace(self._context, messages=messages)
        if instructions is not self._instructions:
            parameters = dataclasses.replace(context.model_request_parameters, instruction_parts=instructions)
            context = dataclasses.replace(context, model_request_parameters=parameters)
        return context


def _changed(parts: Sequence[Any], before: Sequence[Message], after: Sequence[Message]) -> Sequence[Any]:
    return _taken(parts, iter(zip(before, after, strict=True)))


def _taken(parts: Sequence[Any], pairs: Iterable[tuple[Message, Message]]) -> Sequence[Any]:
    """The parts with those that plugins changed; the same object without any. Uses up one pair for each part."""
    taken = []
    for part, (old, new) in zip(parts, pairs, strict=False):
        taken.append(part if old is new else _written(part, new))
    return taken if any(old is not new for old, new in zip(parts, taken, strict=True)) else parts


_SPEAKERS = {
    pa.SystemPromptPart: Role.SYSTEM,
    pa.InstructionPart: Role.SYSTEM,
    pa.UserPromptPart: Role.USER,
    pa.RetryPromptPart: Role.USER,
    pa.ToolReturnPart: Role.TOOL,
}
"""Who says what; all else is the model's."""


def _shown(part: Any) -> Message:
    """A part as a message of the common format."""
    return Message.model_validate(
        {"role": _SPEAKERS.get(type(part), Role.ASSISTANT), "content": _content(part)},
        context={"unknown": Unknown.KEEP},
    )


def _content(part: Any) -> list[ContentPart]:
    if isinstance(part, pa.ToolCallPart):
        call = ToolCall(tool_call_id=part.tool_call_id, name=part.tool_name, arguments=part.args_as_dict())
        return [ToolCallContentPart(content=call)]
    if isinstance(part, pa.ToolReturnPart):
        result = ToolResult(tool_call_id=part.tool_call_id, tool_name=part.tool_name, content=part.content)
        return [ToolResultContentPart(content=result)]
    if isinstance(part, pa.ThinkingPart):
        return [ThinkingContent(text=part.content)]
    if isinstance(part, pa.RetryPromptPart):
        return [TextContent(text=part.model_response())]
    content = getattr(part, "content", None)
    if isinstance(content, str):
        return [TextContent(text=content)]
    if isinstance(part, pa.UserPromptPart):
        return [TextContent(text=each) if isinstance(each, str) else _opaque(each) for each in part.content]
    return [_opaque(part)]


def _opaque(thing: Any) -> ContentPart:
    """What the common format has no part for: kept whole, so that no plugin takes it for harmless."""
    return OpaqueContentPart.model_validate(
        {"content_type": f"pydantic_ai.{type(thing).__name__}", "block": thing}, context={"unknown": Unknown.KEEP}
    )


def _written(part: Any, message: Message) -> Any:
    """The part that a changed message says."""
    if isinstance(part, pa.UserPromptPart) and not isinstance(part.content, str):
        pairs = zip(part.content, message.content, strict=True)
        return dataclasses.replace(part, content=[_item(old, new) for old, new in pairs])
    new = message.content[0] if len(message.content) == 1 else None
    if isinstance(part, pa.ToolCallPart) and isinstance(new, ToolCallContentPart):
        return dataclasses.replace(part, tool_name=new.content.name, args=dict(new.content.arguments))
    if isinstance(part, pa.ToolReturnPart) and isinstance(new, ToolResultContentPart):
        return dataclasses.replace(part, content=new.content.content)
    if isinstance(new, TextContent | ThinkingContent):
        # What a provider keeps beside a text repeats it: log probabilities, reasoning as it came.
        repeated = {"provider_details": None} if getattr(part, "provider_details", None) else {}
        return dataclasses.replace(part, content=new.text, **repeated)
    raise GuardError(
        f"a plugin turned a `{type(part).__name__}` into something else; let it change the texts that it was shown"
    )


def _item(old: Any, new: ContentPart) -> Any:
    if isinstance(old, str) and isinstance(new, TextContent):
        return new.text
    if isinstance(new, OpaqueContentPart) and (new.model_extra or {}).get("block") == old:
        return old
    raise GuardError(f"a plugin rewrote a `{type(old).__name__}`, which has no form that it could be given back in")
