"""The table of operations: for each kind, the hooks before and after it, and how it is shown to them.

A *step* is one hook. It shows what flows (before the operation its payload, after it its result) as payloads of that
hook, and takes back what plugins made of them. Native hooks come first, their `cmf.*` twins see what those left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cpex.framework.hooks.agents import AgentPostInvokePayload
from cpex.framework.hooks.headers import HttpHeaderPayload
from cpex.framework.hooks.http import HttpPostRequestPayload
from cpex.framework.hooks.prompts import PromptPosthookPayload
from cpex.framework.hooks.resources import ResourcePostFetchPayload
from cpex.framework.hooks.tools import ToolPostInvokePayload
from cpex.framework.utils import StructuredData

if TYPE_CHECKING:
    from cpex.framework.models.payload import PluginPayload

__all__ = ["AGENT", "HTTP", "KINDS", "MODEL", "PROMPT", "RESOURCE", "TOOL", "HttpResponse", "Kind", "Shown", "Step"]


class Shown(Protocol):
    """What a step may know of the operation that it belongs to."""

    id: str
    """Ties a result to its call."""
    payload: Any
    """What the operation is performed with, as the hooks before it left it."""

    @property
    def server(self) -> str | None:
        """The server that is asked, if the request says so."""


@dataclass(frozen=True, slots=True)
class Step:
    """One hook, and the way there and back."""

    hook: str
    show: Callable[[Shown, Any], list[PluginPayload]]
    """What flows, as payloads; the hook is called once for each."""
    take: Callable[[Shown, Any, Mapping[int, Any]], Any]
    """What flows on, given the payloads that plugins changed, by their index."""
    is_twin: bool = False
    """Whether it shows in the common format what another step shows as well."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of operation."""

    name: str
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    target: Callable[[Any], str]
    """Which tool, prompt, ... a payload is about."""
    target_field: str | None = None
    """The payload's field that says so, where another value means another operation."""
    encloses: bool = False
    """Whether the request's other operations happen inside of it, and share what plugins keep."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What plugins see and may change of a response."""

    status: int
    headers: dict[str, str]


def _whole(op: Shown, payload: Any) -> list[Any]:
    return [payload]


def _replaced(op: Shown, payload: Any, changed: Mapping[int, Any]) -> Any:
    return changed[0]


def _tool_result(op: Shown, result: Any) -> list[Any]:
    return [ToolPostInvokePayload(name=op.payload.name, result=result)]


def _prompt_result(op: Shown, result: Any) -> list[Any]:
    return [PromptPosthookPayload(prompt_id=op.payload.prompt_id, result=result)]


def _resource_content(op: Shown, content: Any) -> list[Any]:
    return [ResourcePostFetchPayload(uri=op.payload.uri, content=content)]


def _agent_answer(op: Shown, answer: Any) -> list[Any]:
    messages = list(answer) if isinstance(answer, list | tuple) else [answer]
    return [AgentPostInvokePayload(agent_id=op.payload.agent_id, messages=messages)]


def _taken_result(op: Shown, result: Any, changed: Mapping[int, Any]) -> Any:
    return _as_given(result, changed[0].result)


def _taken_content(op: Shown, content: Any, changed: Mapping[int, Any]) -> Any:
    return changed[0].content


def _taken_answer(op: Shown, answer: Any, changed: Mapping[int, Any]) -> Any:
    before = list(answer) if isinstance(answer, list | tuple) else [answer]
    after = [
        _as_given(before[index] if index < len(before) else {}, each) for index, each in enumerate(changed[0].messages)
    ]
    if isinstance(answer, list | tuple):
        return after
    # A plugin that answers with several messages where the host gave one is heard in full.
    return after[0] if len(after) == 1 else after


def _as_given(before: Any, after: Any) -> Any:
    """What was shown readable by attribute, as the dict that the host gave."""
    return after.model_dump() if isinstance(before, Mapping) and isinstance(after, StructuredData) else after


def _with_headers(op: Shown, payload: Any, changed: Mapping[int, Any]) -> Any:
    headers = HttpHeaderPayload(merged(payload.headers.root, changed[0]))
    return payload.model_copy(update={"headers": headers})


def _response(op: Shown, response: HttpResponse) -> list[Any]:
    request = op.payload
    # Not validated: its deprecated field of headers is the only one that a plugin without capabilities can read.
    return [
        HttpPostRequestPayload.model_construct(
            **dict(request), response_headers=HttpHeaderPayload(response.headers), status_code=response.status
        )
    ]


def _with_response_headers(op: Shown, response: HttpResponse, changed: Mapping[int, Any]) -> HttpResponse:
    return HttpResponse(response.status, merged(response.headers, changed[0]))


def merged(headers: Mapping[str, str], changes: Any) -> dict[str, str]:
    """Headers with those of another map in their place, whatever the case of the names (RFC 9110, section 5.1)."""
    new = dict(changes.items())
    replaced = {name.lower() for name in new}
    return {name: value for name, value in headers.items() if name.lower() not in replaced} | new


def _twin(hook: str) -> Step:
    """The step of a `cmf.*` hook; the message format is loaded when one is first called."""

    def show(op: Shown, state: Any) -> list[Any]:
        from cpex.framework.guard import messages

        return messages.shown(hook, op, state)

    def take(op: Shown, state: Any, changed: Mapping[int, Any]) -> Any:
        from cpex.framework.guard import messages

        return messages.taken(hook, op, state, changed)

    return Step(hook, show, take, is_twin=not hook.startswith("cmf.llm_"))


TOOL = Kind(
    "tool",
    (Step("tool_pre_invoke", _whole, _replaced), _twin("cmf.tool_pre_invoke")),
    (Step("tool_post_invoke", _tool_result, _taken_result), _twin("cmf.tool_post_invoke")),
    target=lambda payload: str(payload.name),
    target_field="name",
)
PROMPT = Kind(
    "prompt",
    (Step("prompt_pre_fetch", _whole, _replaced), _twin("cmf.prompt_pre_fetch")),
    (Step("prompt_post_fetch", _prompt_result, _taken_result), _twin("cmf.prompt_post_fetch")),
    target=lambda payload: str(payload.prompt_id),
    target_field="prompt_id",
)
RESOURCE = Kind(
    "resource",
    (Step("resource_pre_fetch", _whole, _replaced), _twin("cmf.resource_pre_fetch")),
    (Step("resource_post_fetch", _resource_content, _taken_content), _twin("cmf.resource_post_fetch")),
    target=lambda payload: str(payload.uri),
)
AGENT = Kind(
    "agent",
    (Step("agent_pre_invoke", _whole, _replaced),),
    (Step("agent_post_invoke", _agent_answer, _taken_answer),),
    target=lambda payload: str(payload.agent_id),
    target_field="agent_id",
)
MODEL = Kind("model", (_twin("cmf.llm_input"),), (_twin("cmf.llm_output"),), target=lambda messages: "model")
HTTP = Kind(
    "http",
    (Step("http_pre_request", _whole, _with_headers),),
    (Step("http_post_request", _response, _with_response_headers),),
    target=lambda payload: f"{payload.method} {payload.path}",
    encloses=True,
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (TOOL, PROMPT, RESOURCE, AGENT, MODEL, HTTP)}
"""Every kind by its name."""
