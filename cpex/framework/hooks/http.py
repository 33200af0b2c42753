"""Hooks around HTTP requests: before, after, who is it, and may they."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, TypeAlias

from cpex.framework.hooks.headers import HttpHeaderPayload, warns_of_headers
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

__all__ = [
    "HttpAuthCheckPermissionPayload",
    "HttpAuthCheckPermissionResult",
    "HttpAuthCheckPermissionResultPayload",
    "HttpAuthResolveUserPayload",
    "HttpAuthResolveUserResult",
    "HttpHeaderPayload",
    "HttpHeaderPayloadResult",
    "HttpHookType",
    "HttpPostRequestPayload",
    "HttpPostRequestResult",
    "HttpPreRequestPayload",
    "HttpPreRequestResult",
]


class HttpHookType(str, Enum):
    """Names of the HTTP hooks."""

    HTTP_PRE_REQUEST = "http_pre_request"
    HTTP_POST_REQUEST = "http_post_request"
    HTTP_AUTH_RESOLVE_USER = "http_auth_resolve_user"
    HTTP_AUTH_CHECK_PERMISSION = "http_auth_check_permission"


class HttpPreRequestPayload(PluginPayload):
    """A request that is about to be handled. The reply is a header map to apply to it."""

    path: str
    method: str
    """Any text; the host does not restrict it to known methods."""
    client_host: str | None = None
    client_port: int | None = None
    headers: Annotated[HttpHeaderPayload, warns_of_headers("HttpPreRequestPayload")]
    """Deprecated in favour of `extensions.http.headers`."""


class HttpPostRequestPayload(HttpPreRequestPayload):
    """A request that was handled. The reply is a header map to apply to the response."""

    response_headers: HttpHeaderPayload | None = None
    status_code: int | None = None


class HttpAuthResolveUserPayload(PluginPayload):
    """A request whose user is to be found. The reply is a dict that describes the user."""

    credentials: dict[str, Any] | None = None
    """As the host's authentication scheme delivers them, e.g. `{"scheme": "Bearer", "credentials": "…"}`."""
    headers: Annotated[HttpHeaderPayload, warns_of_headers("HttpAuthResolveUserPayload")]
    """Deprecated in favour of `extensions.http.headers`."""
    client_host: str | None = None
    client_port: int | None = None


class HttpAuthCheckPermissionPayload(PluginPayload):
    """A user who wants to do something. The reply grants or refuses it; no reply is no opinion."""

    user_email: str
    permission: str
    """What is asked for, such as `tools.read`."""
    resource_type: str | None = None
    team_id: str | None = None
    is_admin: bool = False
    auth_method: str | None = None
    client_host: str | None = None
    user_agent: str | None = None


class HttpAuthCheckPermissionResultPayload(PluginPayload):
    """Whether a permission is granted."""

    granted: bool
    reason: str | None = None


HttpHeaderPayloadResult: TypeAlias = PluginResult[HttpHeaderPayload]
HttpPreRequestResult: TypeAlias = HttpHeaderPayloadResult
HttpPostRequestResult: TypeAlias = HttpHeaderPayloadResult
# Bare `dict` is part of the contract: hosts may name this very class `PluginResult[dict]`.
HttpAuthResolveUserResult: TypeAlias = PluginResult[dict]  # type: ignore[type-arg]
HttpAuthCheckPermissionResult: TypeAlias = PluginResult[HttpAuthCheckPermissionResultPayload]
