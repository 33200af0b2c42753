"""Which payload and result class each hook has.

Any text is a hook name, and hooks that plugins and host agree on need no entry here. An entry is what turns JSON into
objects, and what tells the pipeline that a hook's reply is of another class than its payload. The built-in hooks are
known from the start; the module that defines one is loaded when its classes are first asked for.
"""

from __future__ import annotations

import difflib
import logging
from enum import Enum
from importlib import import_module
from typing import Any, NamedTuple, get_args, get_origin

__all__ = ["HookRegistry", "get_hook_registry"]

logger = logging.getLogger(__name__)

_PACKAGE = "cpex.framework.hooks"

_BUILT_IN: dict[str, tuple[str, str, str]] = {
    "http_pre_request": ("http", "HttpPreRequestPayload", "HttpPreRequestResult"),
    "http_post_request": ("http", "HttpPostRequestPayload", "HttpPostRequestResult"),
    "http_auth_resolve_user": ("http", "HttpAuthResolveUserPayload", "HttpAuthResolveUserResult"),
    "http_auth_check_permission": ("http", "HttpAuthCheckPermissionPayload", "HttpAuthCheckPermissionResult"),
    "agent_pre_invoke": ("agents", "AgentPreInvokePayload", "AgentPreInvokeResult"),
    "agent_post_invoke": ("agents", "AgentPostInvokePayload", "AgentPostInvokeResult"),
    "prompt_pre_fetch": ("prompts", "PromptPrehookPayload", "PromptPrehookResult"),
    "prompt_post_fetch": ("prompts", "PromptPosthookPayload", "PromptPosthookResult"),
    "resource_pre_fetch": ("resources", "ResourcePreFetchPayload", "ResourcePreFetchResult"),
    "resource_post_fetch": ("resources", "ResourcePostFetchPayload", "ResourcePostFetchResult"),
    "tool_pre_invoke": ("tools", "ToolPreInvokePayload", "ToolPreInvokeResult"),
    "tool_post_invoke": ("tools", "ToolPostInvokePayload", "ToolPostInvokeResult"),
    "tool_list": ("lists", "ToolListPayload", "ToolListResult"),
    "prompt_list": ("lists", "PromptListPayload", "PromptListResult"),
    "resource_list": ("lists", "ResourceListPayload", "ResourceListResult"),
    "identity_resolve": ("identity", "IdentityPayload", "IdentityResolveResult"),
    "token_delegate": ("identity", "DelegationPayload", "TokenDelegateResult"),
    "evaluate": ("message", "MessagePayload", "MessageResult"),
    "cmf.tool_pre_invoke": ("message", "MessagePayload", "MessageResult"),
    "cmf.tool_post_invoke": ("message", "MessagePayload", "MessageResult"),
    "cmf.llm_input": ("message", "MessagePayload", "MessageResult"),
    "cmf.llm_output": ("message", "MessagePayload", "MessageResult"),
    "cmf.resource_pre_fetch": ("message", "MessagePayload", "MessageResult"),
    "cmf.resource_post_fetch": ("message", "MessagePayload", "MessageResult"),
    "cmf.prompt_pre_fetch": ("message", "MessagePayload", "MessageResult"),
    "cmf.prompt_post_fetch": ("message", "MessagePayload", "MessageResult"),
}
"""Hook name → module of this package, payload class, result class."""


class _Types(NamedTuple):
    payload: Any
    result: Any


class HookRegistry:
    """The one table of the process: hook name → payload class and result class.

    `HookRegistry()` returns the same object each time. Hook names are given as text or as enum members.
    """

    _instance: HookRegistry | None = None
    _types: dict[str, _Types | None]

    def __new__(cls) -> HookRegistry:
        if cls._instance is None:
            registry = super().__new__(cls)
            # `None` stands for classes that are not loaded yet.
            registry._types = dict.fromkeys(_BUILT_IN)
            cls._instance = registry
        return cls._instance

    def register_hook(self, hook_type: str, payload_class: type[Any], result_class: type[Any]) -> None:
        """Enter a hook. An earlier entry is replaced; replacing it by other classes is logged as a WARNING."""
        name = _name(hook_type)
        types = _Types(payload_class, result_class)
        if name in self._types and self._lookup(name) != types:
            logger.warning("Hook %s is registered again, with other classes than before", name)
        self._types[name] = types

    def unregister_hook(self, hook_type: str) -> None:
        """Remove a hook; an unknown one is ignored. A built-in hook comes back with its own classes."""
        name = _name(hook_type)
        if name in _BUILT_IN:
            self._types[name] = None
        else:
            self._types.pop(name, None)

    def get_payload_type(self, hook_type: str) -> type[Any] | None:
        """The payload class of a hook; `None` when the hook is not registered."""
        types = self._lookup(_name(hook_type))
        return types.payload if types is not None else None

    def get_result_type(self, hook_type: str) -> type[Any] | None:
        """The result class of a hook; `None` when the hook is not registered."""
        types = self._lookup(_name(hook_type))
        return types.result if types is not None else None

    def reply_type(self, hook_type: str) -> type[Any] | None:
        """The class of a hook's reply where it is another than its payload, as its result class declares it.

        `None` when the reply is a changed payload, when the result takes anything, and for unregistered hooks.
        """
        types = self._lookup(_name(hook_type))
        reply = _declared_reply(types.result) if types is not None else None
        if types is None or reply is None:
            return None
        related = isinstance(types.payload, type) and (
            issubclass(types.payload, reply) or issubclass(reply, types.payload)
        )
        return None if related else reply

    def json_to_payload(self, hook_type: str, payload: str | dict[str, Any] | Any) -> Any:
        """Make a hook's payload of JSON text or of a dict; an instance of its class is returned as it is.

        Raises:
            ValueError: The hook is not registered.
            pydantic.ValidationError: The data does not fit the payload class.
        """
        payload_class = self.get_payload_type(hook_type)
        if payload_class is None:
            raise self._unregistered("payload", _name(hook_type))
        return _from_json(payload_class, payload)

    def json_to_result(self, hook_type: str, result: str | dict[str, Any] | Any) -> Any:
        """Make a hook's result of JSON text or of a dict; an instance of its class is returned as it is.

        Raises:
            ValueError: The hook is not registered.
            pydantic.ValidationError: The data does not fit the result class.
        """
        result_class = self.get_result_type(hook_type)
        if result_class is None:
            raise self._unregistered("result", _name(hook_type))
        return _from_json(result_class, result)

    def is_registered(self, hook_type: str) -> bool:
        """Whether the hook's classes are known."""
        return _name(hook_type) in self._types

    def get_registered_hooks(self) -> list[str]:
        """The names of all registered hooks: the built-in ones, then others in the order of registration."""
        return list(self._types)

    def _lookup(self, name: str) -> _Types | None:
        types = self._types.get(name)
        if types is None and name in _BUILT_IN and name in self._types:
            module_name, payload_name, result_name = _BUILT_IN[name]
            module = import_module(f"{_PACKAGE}.{module_name}")
            types = self._types[name] = _Types(getattr(module, payload_name), getattr(module, result_name))
        return types

    def _unregistered(self, what: str, name: str) -> ValueError:
        close = difflib.get_close_matches(name, self._types, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "register it with `HookRegistry().register_hook`"
        return ValueError(f"No {what} type registered for hook: {name}; {hint}")


def get_hook_registry() -> HookRegistry:
    """The process's registry."""
    return HookRegistry()


def _name(hook_type: str) -> str:
    return str(hook_type.value) if isinstance(hook_type, Enum) else hook_type


def _from_json(cls: Any, data: Any) -> Any:
    return cls.model_validate_json(data) if isinstance(data, str) else cls.model_validate(data)


def _declared_reply(result_class: Any) -> type[Any] | None:
    """The class that a result class names for `modified_payload`, when it names a single one."""
    field = getattr(result_class, "model_fields", {}).get("modified_payload")
    if field is None:
        return None
    named = [each for each in get_args(field.annotation) or (field.annotation,) if each is not type(None)]
    if len(named) != 1:
        return None
    reply = get_origin(named[0]) or named[0]
    return reply if isinstance(reply, type) and reply is not Any else None
