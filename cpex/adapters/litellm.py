"""The guard as a LiteLLM guardrail, for the SDK and for the proxy. Needs the extra `litellm`.

Source: docs/adapters/litellm.md; https://docs.litellm.ai/docs/proxy/guardrails/custom_guardrail.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpex.adapters._extras import needs

with needs("litellm"):
    from litellm.exceptions import GuardrailRaisedException
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks

from cpex.adapters._requests import denial_text
from cpex.framework.cmf.adapters import from_openai, to_openai
from cpex.framework.errors import GuardError, PluginViolationError
from cpex.framework.guard import MODEL, Operation, current_request

if TYPE_CHECKING:
    from cpex.framework.cmf.message import Message
    from cpex.framework.guard.facts import RequestFacts
    from cpex.framework.manager import PluginManager

__all__ = ["GuardGuardrail"]

MAX_OPEN = 10_000
"""Calls between their hooks; of more, the oldest are given up, and their answers judged as if nothing came before."""
_CHATS = frozenset({"completion", "acompletion"})
_WORDS = ("role", "content", "tool_calls", "reasoning_content")
"""What of an answer plugins see and may change."""


# The framework's base is typed as `Any` where it is not installed.
class GuardGuardrail(CustomGuardrail):  # type: ignore[misc]
    """A guardrail whose `pre_call` is `cmf.llm_input` and whose `post_call` is `cmf.llm_output`.

        litellm.callbacks = [GuardGuardrail(manager)]
        await litellm.acompletion(model=..., messages=..., guardrails=["cpex"])

    A denial is a `GuardrailRaisedException`. So is everything that plugins for `cmf.llm_output` could not see: streams,
    and calls that are no chat completions.
    """

    def __init__(
        self,
        manager: PluginManager,
        *,
        guardrail_name: str = "cpex",
        facts: Callable[[Mapping[str, Any]], RequestFacts] | None = None,
        **options: Any,
    ) -> None:
        """Make it.

        Args:
            guardrail_name: What calls name it by.
            facts: What is known of a call from its data: user, tenant, session.
            options: For LiteLLM, such as `default_on`.
        """
        hooks = [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call]
        super().__init__(
            guardrail_name=guardrail_name, **{"event_hook": hooks, "supported_event_hooks": hooks, **options}
        )
        self._manager = manager
        self._facts = facts
        self._open: OrderedDict[str, Operation] = OrderedDict()

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """Judge what is asked; gives the data with what plugins made of its messages."""
        operation = self._begin(data, user_api_key_dict)
        if operation is None:
            return data
        self._refuse_unseen(data, call_type)
        asked = operation.payload
        try:
            ready = await operation.before()
        except BaseException as error:
            operation.failed(error)
            raise self._told(error, operation) from error
        self._keep(data, operation)
        data["messages"] = _changed(data["messages"], asked, ready)
        return data

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        """Judge what was answered; gives the response with what plugins made of it."""
        operation = self._open.pop(data.get("litellm_call_id") or "", None) or self._begin(data, user_api_key_dict)
        if operation is None:
            return response
        try:
            answers = [getattr(choice, "message", None) for choice in response.choices]
            if None in answers:
                raise self._raised("denied: plugins see chat completions only, and this is another answer")
            written = [_words(answer) for answer in answers]
            shown = from_openai(written)
            taken = _changed(written, shown, await operation.after(shown))
        except BaseException as error:
            operation.failed(error)
            raise self._told(error, operation) from error
        if taken is written:
            return response
        own = response.model_copy(deep=True)
        for choice, before, after in zip(own.choices, written, taken, strict=True):
            if after is not before:
                choice.message = type(choice.message)(**{**choice.message.model_dump(), **after})
        return own

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Forget a call that the provider did not answer."""
        operation = self._open.pop(kwargs.get("litellm_call_id") or "", None)
        if operation is not None:
            error = kwargs.get("exception")
            operation.failed(error if isinstance(error, BaseException) else RuntimeError("the provider failed"))

    def _begin(self, data: Any, user_api_key_dict: Any) -> Operation | None:
        """The operation of a call; `None` where nothing guards it."""
        request = current_request.get()
        if request is None or request.manager is not self._manager:
            request = self._manager.request(**self._known(data, user_api_key_dict))
        if not request.guards(MODEL):
            return None
        return request.operation(MODEL, from_openai(data.get("messages") or [], drop=("name",)))

    def _known(self, data: Any, user_api_key_dict: Any) -> RequestFacts:
        if self._facts is not None:
            return self._facts(data)
        user = getattr(user_api_key_dict, "user_id", None) or data.get("user")
        return {"user": user, "tenant_id": getattr(user_api_key_dict, "team_id", None)}

    def _refuse_unseen(self, data: Any, call_type: Any) -> None:
        name = getattr(call_type, "value", call_type)
        if name not in _CHATS:
            raise self._raised(f"denied: plugins see chat completions only, and this is `{name}`")
        if data.get("stream") and self._manager.has_hooks_for("cmf.llm_output"):
            raise self._raised("denied: a stream would go past plugins that judge the whole; ask without `stream`")

    def _keep(self, data: Any, operation: Operation) -> None:
        # Calls that name themselves find their operation again; LiteLLM gives each a name before its hooks.
        self._open[data.setdefault("litellm_call_id", uuid.uuid4().hex)] = operation
        while len(self._open) > MAX_OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.failed(TimeoutError("no answer came back to the guardrail"))

    def _told(self, error: BaseException, operation: Operation) -> BaseException:
        if isinstance(error, PluginViolationError) and error is operation.denial:
            return self._raised(denial_text(error))
        return error

    def _raised(self, text: str) -> BaseException:
        # mypy: the framework's exception is typed as `Any` where it is not installed.
        error: BaseException = GuardrailRaisedException(self.guardrail_name, text)
        return error


def _words(answer: Any) -> dict[str, Any]:
    """What an answer says, as it goes over the wire."""
    told = answer.model_dump()
    return {name: told[name] for name in _WORDS if told.get(name) is not None}


def _changed(
    written: list[dict[str, Any]], before: Sequence[Message], after: Sequence[Message]
) -> list[dict[str, Any]]:
    """The wire's messages with those that plugins changed; the same list without any."""
    if len(before) != len(after):
        raise GuardError("a plugin changed the number of messages; let it change their content")
    if all(old is new for old, new in zip(before, after, strict=True)):
        return written
    made = to_openai(list(after))
    return [
        each if old is new else {**each, **new_each}
        for each, old, new, new_each in zip(written, before, after, made, strict=True)
    ]
