"""The guard as a LiteLLM guardrail, for the SDK and for the proxy. Needs the extra `litellm`.

Source: docs/adapters/litellm.md; https://docs.litellm.ai/docs/proxy/guardrails/custom_guardrail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from cpex.adapters._extras import needs

with needs("litellm"):
    from litellm.exceptions import GuardrailRaisedException
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks

from cpex.adapters._requests import denial_text
from cpex.framework.cmf.adapters import AdapterError, from_openai, to_openai
from cpex.framework.errors import GuardError, PayloadSizeError, PluginError, PluginViolationError, cause_text
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.guard import MODEL, Operation, current_request

if TYPE_CHECKING:
    from cpex.framework.cmf.message import Message
    from cpex.framework.guard.facts import RequestFacts
    from cpex.framework.manager import PluginManager

__all__ = ["GuardGuardrail"]

logger = logging.getLogger(__name__)

_CHATS = frozenset({"completion", "acompletion"})
_JUDGED_AFTER = "cmf.llm_output"
_WORDS = ("role", "content", "tool_calls", "reasoning_content", "refusal")
"""What of an answer plugins see and may change."""
_UNSEEN = ("audio", "images", "function_call")
"""What else an answer may say. Plugins are not shown it, so it goes to nobody."""
_REPEATED = ("thinking_blocks", "reasoning_items", "provider_specific_fields", "annotations")
"""What repeats the words in a provider's own form, or quotes them; it goes with the words that plugins replace."""


# The framework's base is typed as `Any` where it is not installed.
class GuardGuardrail(CustomGuardrail):  # type: ignore[misc]
    """A guardrail whose `pre_call` is `cmf.llm_input` and whose `post_call` is `cmf.llm_output`.

        litellm.callbacks = [GuardGuardrail(manager, default_on=True)]
        await litellm.acompletion(model=..., messages=...)

    Without `default_on` it stands around calls that name it: `guardrails=["cpex"]`. A denial is a
    `GuardrailRaisedException`. So is everything that plugins for `cmf.llm_output` could not see: streams, and calls
    that are no chat completions.
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

        Raises:
            ValueError: LiteLLM would run it beside other guardrails, and drop what plugins rewrite.
        """
        if options.get("run_in_parallel"):
            raise ValueError(
                f"guardrail `{guardrail_name}` cannot have `run_in_parallel`: LiteLLM drops what such guardrails "
                "rewrite; leave it out"
            )
        hooks = [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call]
        super().__init__(
            guardrail_name=guardrail_name, **{"event_hook": hooks, "supported_event_hooks": hooks, **options}
        )
        # LiteLLM takes guardrails for the same one whose public numbers and texts are equal.
        self.instance = id(self)
        self._manager = manager
        self._facts = facts
        # SECURITY: by LiteLLM's own object of the call. Clients of the proxy may choose the id of a call, and could
        # meet the operation of somebody else's.
        self._open: WeakKeyDictionary[Any, Operation] = WeakKeyDictionary()
        # A guardrail that a model of the proxy names is called twice, for the model and for the proxy.
        self._judged: WeakValueDictionary[int, Any] = WeakValueDictionary()

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """Judge what is asked; gives the data with what plugins made of its messages."""
        try:
            await self.ready()
            operation = self._begin(data, user_api_key_dict)
            if operation is None:
                return data
            data["messages"] = await self._asked(operation, data, call_type)
        # Whatever went wrong, the call is refused: LiteLLM is told of it in an exception that it shows to clients.
        except Exception as error:
            if (told := self._told(error, data)) is error:
                raise
            raise told from error
        return data

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        """Judge what was answered; gives the response with what plugins made of it."""
        try:
            await self.ready()
            if self._judged.get(id(response)) is response:
                return response
            call = data.get("litellm_logging_obj")
            operation = self._open.pop(call, None) if call is not None else None
            if operation is None:
                operation = self._begin(data, user_api_key_dict)
                if operation is None:
                    return response
                # Nothing was judged before the model was asked.
                operation.request.ledger.check(operation.record, (step.hook for step in MODEL.before))
            answer = await self._answered(operation, response)
            self._judged[id(answer)] = answer
            return answer
        # Whatever went wrong, the call is refused: LiteLLM is told of it in an exception that it shows to clients.
        except Exception as error:
            if (told := self._told(error, data)) is error:
                raise
            raise told from error

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
        """Judge what is asked through the SDK; with `default_on`, also where the call does not name the guardrail."""
        if not self._stands_by_default(kwargs):
            return await super().async_pre_call_deployment_hook(kwargs, call_type)
        return await self.async_pre_call_hook(None, None, kwargs, call_type)

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> Any:
        """Judge what was answered through the SDK; as the hook before."""
        if not self._stands_by_default(request_data):
            return await super().async_post_call_success_deployment_hook(request_data, response, call_type)
        return await self.async_post_call_success_hook(request_data, None, response)

    def _stands_by_default(self, data: Any) -> bool:
        # The proxy calls for its guardrails itself, and LiteLLM for those that a call names.
        return self.default_on is True and not data.get("guardrails") and not data.get("proxy_server_request")

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Forget a call that the provider did not answer."""
        for call, operation in list(self._open.items()):
            if call.model_call_details is kwargs:
                del self._open[call]
                error = kwargs.get("exception")
                operation.failed(error if isinstance(error, BaseException) else RuntimeError("the provider failed"))

    async def ready(self) -> None:
        """Wait until the plugins run; here it is the host that has started them."""

    async def _asked(self, operation: Operation, data: Any, call_type: Any) -> list[dict[str, Any]]:
        """The messages of a call as plugins left them; the operation waits for its answer."""
        try:
            self._refuse_unseen(operation, data, call_type)
            asked = operation.payload
            ready = await operation.before()
            if data.get("stream"):
                # Nothing is judged after it.
                await operation.after([])
            elif (call := data.get("litellm_logging_obj")) is not None:
                self._open[call] = operation
            return _changed(data["messages"], asked, ready)
        except BaseException as error:
            operation.failed(error)
            raise

    async def _answered(self, operation: Operation, response: Any) -> Any:
        try:
            answers = [getattr(choice, "message", None) for choice in getattr(response, "choices", None) or [None]]
            if None in answers:
                raise self._raised("denied: plugins see chat completions only, and this is another answer")
            unseen = [name for name in _UNSEEN if any(getattr(answer, name, None) for answer in answers)]
            if unseen and self._is_judged_after(operation):
                raise self._raised(f"denied: plugins see texts and calls of tools, and the answer has `{unseen[0]}`")
            written = [_words(answer) for answer in answers]
            shown = from_openai(written)
            taken = _changed(written, shown, await operation.after(shown))
        except BaseException as error:
            operation.failed(error)
            raise
        if taken is written:
            return response
        own = response.model_copy(deep=True)
        for choice, before, after in zip(own.choices, written, taken, strict=True):
            if after is not before:
                choice.message = _rewritten(choice.message, after)
                # The words again, one by one.
                choice.logprobs = None
        return own

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
        user, team = (getattr(user_api_key_dict, name, None) for name in ("user_id", "team_id"))
        known: RequestFacts = {"user": user, "tenant_id": team, "session_id": data.get("litellm_session_id")}
        if (through := data.get("proxy_server_request")) is None:
            return {**known, "user": user or data.get("user")}
        # SECURITY: in the proxy, `user` among the data is what the client says; the key tells who it is.
        if headers := through.get("headers"):
            known["extensions"] = Extensions(http=HttpExtension(headers=dict(headers)))
        return known

    def _refuse_unseen(self, operation: Operation, data: Any, call_type: Any) -> None:
        name = getattr(call_type, "value", call_type)
        if name not in _CHATS:
            raise self._raised(f"denied: plugins see chat completions only, and this is `{name}`")
        if data.get("stream") and self._is_judged_after(operation):
            raise self._raised("denied: a stream would go past plugins that judge the whole; ask without `stream`")

    def _is_judged_after(self, operation: Operation) -> bool:
        wanted = operation.request.ledger.coverage.hooks
        return _JUDGED_AFTER in wanted or self._manager.has_hooks_for(_JUDGED_AFTER)

    def _told(self, error: Exception, data: Any) -> Exception:
        """What the caller is told of a denial; in the proxy, of a failure as well."""
        if isinstance(error, PluginViolationError):
            return self._raised(denial_text(error))
        if isinstance(error, AdapterError | PayloadSizeError):
            # They tell where and how much, and nothing of the content.
            return self._raised(f"denied: {error}")
        if not data.get("proxy_server_request") or not isinstance(error, PluginError | GuardError):
            return error
        # SECURITY: the message of a plugin's own error may hold what it was given; the log has it.
        logger.error(
            "Guardrail `%s` refused a call because its guard failed: %s", self.guardrail_name, cause_text(error)
        )
        plugin = getattr(getattr(error, "error", None), "plugin_name", "")
        what = f"plugin `{plugin}` failed" if plugin else "the guard failed"
        return self._raised(f"{what}, so the call was refused; the log says more", status_code=500)

    def _raised(self, text: str, *, status_code: int = 400) -> Exception:
        # mypy: the framework's exception is typed as `Any` where it is not installed.
        error: Exception = GuardrailRaisedException(self.guardrail_name, text)
        # Not given to it: earlier ones take none, and are answered with a status of the proxy's own.
        error.status_code = status_code  # type: ignore[attr-defined]
        return error


def _words(answer: Any) -> dict[str, Any]:
    """What an answer says, as it goes over the wire."""
    told = answer.model_dump()
    return {name: told[name] for name in _WORDS if told.get(name) is not None}


def _rewritten(message: Any, words: Mapping[str, Any]) -> Any:
    """An answer's message with other words, and without what repeats the old ones."""
    kept = {key: value for key, value in message.model_dump().items() if key not in _REPEATED}
    return type(message)(**{**kept, **words})


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
        each if old is new else {**each, **_refusal_apart(each, new_each)}
        for each, old, new, new_each in zip(written, before, after, made, strict=True)
    ]


def _refusal_apart(before: Mapping[str, Any], words: dict[str, Any]) -> dict[str, Any]:
    """What plugins left of a message, with a refusal beside the content where it stood there before."""
    content = words.get("content")
    if not before.get("refusal") or not isinstance(content, list):
        return words
    refused = [block["refusal"] for block in content if block.get("type") == "refusal"]
    others = [block for block in content if block.get("type") != "refusal"]
    alone = others[0].get("text") if [block.keys() for block in others] == [{"type", "text"}] else None
    return {**words, "content": alone or others or None, "refusal": "".join(refused)}
