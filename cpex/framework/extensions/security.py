"""Who asks, how sensitive the data is, and what may be done with it."""

from __future__ import annotations

from enum import Enum

from pydantic import Field

from cpex.framework.extensions.base import ExtensionModel

__all__ = [
    "DataPolicy",
    "ObjectSecurityProfile",
    "RetentionPolicy",
    "SecurityExtension",
    "SubjectExtension",
    "SubjectType",
]


class SubjectType(str, Enum):
    """The kinds of subject."""

    USER = "user"
    AGENT = "agent"
    SERVICE = "service"
    SYSTEM = "system"


class SubjectExtension(ExtensionModel):
    """The authenticated subject of the request."""

    id: str
    type: SubjectType
    roles: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    teams: frozenset[str] = frozenset()
    claims: dict[str, str] = Field(default_factory=dict)
    """Claims of the token that identified the subject: `{claim: text}`."""


class ObjectSecurityProfile(ExtensionModel):
    """What is needed to use a tool, resource or prompt, and what it touches."""

    managed_by: str = "host"
    """Who enforces access: `host`, `tool` or `both`."""
    permissions: list[str] = Field(default_factory=list)
    """All of them are needed to invoke the object."""
    trust_domain: str | None = None
    """Free text such as `internal`, `external` or `privileged`."""
    data_scope: list[str] = Field(default_factory=list)
    """Names of the data fields that the object touches."""


class RetentionPolicy(ExtensionModel):
    """How long data may be kept."""

    max_age_seconds: int | None = None
    policy: str = "persistent"
    """`session`, `transient`, `persistent` or `none`."""
    delete_after: str | None = None
    """ISO 8601 text; kept as it was given."""


class DataPolicy(ExtensionModel):
    """What may be done with the data of one entity."""

    apply_labels: list[str] = Field(default_factory=list)
    """Labels that the output gets."""
    allowed_actions: list[str] | None = None
    """`None` restricts nothing; an empty list allows nothing."""
    denied_actions: list[str] = Field(default_factory=list)
    retention: RetentionPolicy | None = None


class SecurityExtension(ExtensionModel):
    """The subject, the labels gathered so far, and the policies of the entities involved."""

    labels: frozenset[str] = frozenset()
    """Sensitivity labels. Plugins may add to them, never take away."""
    classification: str | None = None
    subject: SubjectExtension | None = None
    objects: dict[str, ObjectSecurityProfile] = Field(default_factory=dict)
    """By name of the entity."""
    data: dict[str, DataPolicy] = Field(default_factory=dict)
    """By name of the entity."""
