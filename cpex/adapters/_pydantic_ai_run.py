"""What an agent of pydantic-ai is asked and answers, as hooks around agents have it, and back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from pydantic_ai import messages as pa
from pydantic_core import PydanticSerializationError, to_jsonable_python

from cpex.framework.errors import GuardError
from cpex.framework.hooks.agents import AgentPreInvokePayload
from cpex.framework.utils import StructuredData

__all__ = ["UNCHANGED", "answer_of", "payload_of", "prompt_of", "result_with"]

UNCHANGED: Any = object()
"""A prompt that stays as it is."""


def payload_of(ctx: Any) -> AgentPreInvokePayload:
    """What a run begins with: the prompt, as one message. Earlier messages have been judged in their own runs."""
    prompt = ctx.prompt
    messages = [] if prompt is None else [{"role": "user", "content": _shown(prompt)}]
    return AgentPreInvokePayload(agent_id=getattr(ctx.agent, "name", None) or "agent", messages=messages)


def _shown(prompt: Any) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [
        {"type": "text", "text": each} if isinstance(each, str) else {"type": _kind(each), "value": each}
        for each in prompt
    ]


def _kind(item: Any) -> str:
    return str(getattr(item, "kind", type(item).__name__))


def prompt_of(ctx: Any, before: AgentPreInvokePayload, after: AgentPreInvokePayload) -> Any:
    """The prompt that plugins left; `UNCHANGED` where they did not touch it.

    Raises:
        GuardError: They left something that is no prompt.
    """
    if after is before:
        return UNCHANGED
    messages = [_plain(each) for each in after.messages]
    if len(messages) != len(before.messages):
        raise GuardError("a plugin changed the number of an agent's messages; let it change their content")
    if not messages:
        return UNCHANGED
    content = messages[0].get("content")
    if isinstance(ctx.prompt, str) and isinstance(content, str):
        return content
    if isinstance(content, list) and not isinstance(ctx.prompt, str) and len(content) == len(ctx.prompt):
        return [_item(old, _plain(new)) for old, new in zip(ctx.prompt, content, strict=True)]
    raise GuardError("a plugin turned a prompt into something else; let it change the texts that it was shown")


def _item(old: Any, new: Any) -> Any:
    if isinstance(old, str) and new.get("type") == "text" and isinstance(new.get("text"), str):
        return new["text"]
    if not isinstance(old, str) and new.get("value") == old:
        return old
    raise GuardError(f"a plugin rewrote a `{_kind(old)[:100]}` of a prompt; it can rewrite texts only")


def answer_of(result: Any) -> dict[str, Any]:
    """A result as the agent's message: its text, or the output as JSON values."""
    if isinstance(result.output, str):
        return {"role": "assistant", "content": result.output}
    try:
        content = to_jsonable_python(result.output)
    except (PydanticSerializationError, ValueError):
        # Kept as it is: a plugin must not take what it cannot read for nothing.
        content = result.output
    return {"role": "assistant", "content": content}


def result_with(result: Any, before: dict[str, Any], after: Any) -> Any:
    """The result with the text that plugins left, also in the messages that a next run goes on from.

    Raises:
        GuardError: They rewrote an output that is not the model's text.
    """
    if after is before:
        return result
    plain = _plain(after)
    text = plain.get("content") if isinstance(plain, dict) else None
    messages = result.all_messages()
    if isinstance(result.output, str) and isinstance(text, str) and messages:
        parts = _retold(messages[-1].parts, result.output, text)
        if parts is not None:
            messages[-1] = dataclasses.replace(messages[-1], parts=parts)
            own = copy.copy(result)
            own.output = text
            return own
    raise GuardError(
        "a plugin rewrote an output that is not the text of the model's last message, so the conversation would still "
        "say the old one; rewrite it in `cmf.llm_output`"
    )


def _retold(parts: Sequence[Any], old: str, new: str) -> list[Any] | None:
    texts = [part for part in parts if isinstance(part, pa.TextPart)]
    if len(texts) != 1 or texts[0].content != old:
        return None
    return [dataclasses.replace(part, content=new) if part is texts[0] else part for part in parts]


def _plain(message: Any) -> Any:
    # Not dumped: that would make something else of pictures.
    return message.model_extra if isinstance(message, StructuredData) else message
