"""Hooks that establish who calls, and that obtain a token for calling on somebody's behalf."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from cpex.framework.extensions.delegation import DelegationExtension
from cpex.framework.extensions.security import SubjectExtension
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

__all__ = [
    "AttenuationConfig",
    "DelegationPayload",
    "DelegationResult",
    "IdentityHookType",
    "IdentityPayload",
    "IdentityResolveResult",
    "IdentityResult",
    "TokenDelegateResult",
]


class IdentityHookType(str, Enum):
    """Names of the identity hooks."""

    IDENTITY_RESOLVE = "identity_resolve"
    TOKEN_DELEGATE = "token_delegate"


class IdentityPayload(PluginPayload):
    """Credentials whose owner is to be found."""

    raw_token: SecretStr
    """Masked in text and JSON; `get_secret_value()` reads it."""
    source: str = "bearer"
    """Where the token came from: `bearer`, `mtls`, `api_key`, `custom` or free text."""
    headers: dict[str, str] = Field(default_factory=dict)
    client_host: str | None = None
    client_port: int | None = None


class IdentityResult(PluginPayload):
    """Who the caller is, or why they are refused."""

    subject: SubjectExtension | None = None
    delegation: DelegationExtension | None = None
    """The chain that the token itself tells of."""
    rejected: bool = False
    reject_status: int = 401
    """HTTP status of the refusal: 401 or 403."""
    reject_reason: str = ""
    raw_claims: dict[str, Any] = Field(default_factory=dict, repr=False)
    """All claims of the token, for audit and policies."""


class AttenuationConfig(BaseModel):
    """How a token is to be narrowed for one route."""

    model_config = ConfigDict(frozen=True)

    capabilities: list[str] = Field(default_factory=list)
    resource_template: str | None = None
    actions: list[str] = Field(default_factory=list)
    ttl_seconds: int | None = None


class DelegationPayload(PluginPayload):
    """A call that needs a token of its own."""

    target_name: str
    target_type: str = "tool"
    """`tool`, `agent`, `resource`, `service` or free text."""
    target_audience: str | None = None
    required_permissions: list[str] = Field(default_factory=list)
    trust_domain: str | None = None
    auth_enforced_by: str = "caller"
    """`caller`, `target`, `both` or free text."""
    route_attenuation: AttenuationConfig | None = None
    bearer_token: SecretStr | None = None
    """The inbound token to delegate from. Masked in text and JSON."""


class DelegationResult(PluginPayload):
    """A token for the call, and how the chain of delegations grows by it."""

    # The token is plain text by contract, so at least it stays out of `repr` and the log lines made of it.
    delegated_token: str | None = Field(default=None, repr=False)
    """For the downstream call; never stored in extensions."""
    delegation_update: DelegationExtension = Field(default_factory=DelegationExtension)
    forwarded_headers: dict[str, str] = Field(default_factory=dict, repr=False)
    """Headers to add to the downstream request."""
    cache_key: str | None = None
    cache_ttl: int | None = None
    """Seconds."""


IdentityResolveResult: TypeAlias = PluginResult[IdentityResult]
TokenDelegateResult: TypeAlias = PluginResult[DelegationResult]
