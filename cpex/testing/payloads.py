"""Payloads and contexts that a test need not write out: every required field has a plain default."""

from __future__ import annotations

import difflib
import itertools
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cpex.framework.errors import cause_text
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.models.context import GlobalContext

__all__ = ["make_context", "make_payload"]

_PROMPT_REPLY = {"messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}]}

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "HttpPreRequestPayload": {"path": "/", "method": "GET", "headers": {}},
    "HttpPostRequestPayload": {"path": "/", "method": "GET", "headers": {}},
    "HttpAuthResolveUserPayload": {"headers": {}},
    "HttpAuthCheckPermissionPayload": {"user_email": "user@example.com", "permission": "tools.execute"},
    "AgentPreInvokePayload": {"agent_id": "agent", "messages": []},
    "AgentPostInvokePayload": {"agent_id": "agent", "messages": []},
    "PromptPrehookPayload": {"prompt_id": "prompt"},
    "PromptPosthookPayload": {"prompt_id": "prompt", "result": _PROMPT_REPLY},
    "ResourcePreFetchPayload": {"uri": "file:///resource.txt"},
    "ResourcePostFetchPayload": {"uri": "file:///resource.txt", "content": "content"},
    "ToolPreInvokePayload": {"name": "tool"},
    "ToolPostInvokePayload": {"name": "tool", "result": "result"},
    "ToolListPayload": {"tools": []},
    "PromptListPayload": {"prompts": []},
    "IdentityPayload": {"raw_token": "token"},
    "DelegationPayload": {"target_name": "tool"},
    "MessagePayload": {"message": {"role": "user", "content": [{"content_type": "text", "text": "hello"}]}},
}
"""Payload class -> values of its required fields."""

_numbers = itertools.count(1)


def make_payload(hook: str, **fields: Any) -> Any:
    """Build the payload of a hook, so that a test states only the fields that it is about.

    Hooks of the message format take `text="..."` in place of a whole `message`.

    Args:
        hook: A built-in hook, or one that `@hook` or the registry knows; its payload class is used.

    Raises:
        TypeError: The payload has no field of that name.
        ValueError: The hook is not known, or a value does not fit its field.

    Example:
        >>> make_payload("tool_pre_invoke", args={"q": "x"})
        ToolPreInvokePayload(name='tool', args={'q': 'x'}, headers=None)
    """
    registry = get_hook_registry()
    cls = registry.get_payload_type(hook)
    if cls is None:
        # The registry's own message names the nearest hook.
        registry.json_to_payload(hook, {})
        raise AssertionError("the registry takes what it does not know")
    known = list(getattr(cls, "model_fields", {}))
    if "message" in known and "text" in fields:
        fields["message"] = {"role": "user", "content": [{"content_type": "text", "text": fields.pop("text")}]}
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"
            raise TypeError(f"the payload of `{hook}` ({cls.__name__}) has no field `{name}`; {hint}")
    try:
        with warnings.catch_warnings():
            if "headers" not in fields:
                # Some payloads require headers and warn of them; a test that names none is not to be warned.
                warnings.simplefilter("ignore", DeprecationWarning)
            return cls.model_validate({**_DEFAULTS.get(cls.__name__, {}), **fields})
    except ValidationError as error:
        raise ValueError(f"no payload of `{hook}` can be made: {cause_text(error)}") from error


def make_context(*, session: str | None = None, **fields: Any) -> GlobalContext:
    """Build the context of one request; its id is new unless given.

    Args:
        session: The conversation, put where plugins look for it: `metadata["session_id"]`.
        fields: Fields of `GlobalContext`, such as `user` or `tenant_id`.

    Raises:
        TypeError: There is no such field.
    """
    unknown = [name for name in fields if name not in GlobalContext.model_fields]
    if unknown:
        raise TypeError(f"a request has no field `{unknown[0]}`; known: {', '.join(GlobalContext.model_fields)}")
    metadata = {**({"session_id": session} if session is not None else {}), **fields.pop("metadata", {})}
    return GlobalContext(**{"request_id": f"request-{next(_numbers)}", "metadata": metadata, **fields})
