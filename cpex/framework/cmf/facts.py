"""What a request's extensions say, flat: an accessor for each fact that policies ask for.

Without extensions, or without the slot, every accessor has its empty answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Facts are asked of messages with and without extensions; only those who have some load them.
    from cpex.framework.extensions import Extensions
    from cpex.framework.extensions.agent import AgentExtension
    from cpex.framework.extensions.delegation import DelegationExtension
    from cpex.framework.extensions.security import SecurityExtension, SubjectExtension

__all__ = ["RequestFacts"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


class RequestFacts:
    """The facts of one request."""

    __slots__ = ("_extensions",)

    def __init__(self, extensions: Extensions | None) -> None:
        self._extensions = extensions

    @property
    def _security(self) -> SecurityExtension | None:
        return self._extensions.security if self._extensions is not None else None

    @property
    def _agent(self) -> AgentExtension | None:
        return self._extensions.agent if self._extensions is not None else None

    @property
    def environment(self) -> str | None:
        """`request.environment`."""
        return self._request("environment")

    @property
    def request_id(self) -> str | None:
        """`request.request_id`."""
        return self._request("request_id")

    @property
    def trace_id(self) -> str | None:
        """`request.trace_id`."""
        return self._request("trace_id")

    def _request(self, name: str) -> str | None:
        request = self._extensions.request if self._extensions is not None else None
        value: str | None = getattr(request, name, None)
        return value

    @property
    def subject(self) -> SubjectExtension | None:
        """`security.subject`."""
        return self._security.subject if self._security is not None else None

    @property
    def roles(self) -> frozenset[str]:
        """Roles of the subject."""
        return self.subject.roles if self.subject is not None else frozenset()

    @property
    def permissions(self) -> frozenset[str]:
        """Permissions of the subject."""
        return self.subject.permissions if self.subject is not None else frozenset()

    @property
    def teams(self) -> frozenset[str]:
        """Teams of the subject."""
        return self.subject.teams if self.subject is not None else frozenset()

    @property
    def claims(self) -> Mapping[str, str]:
        """Claims of the subject, read-only."""
        return MappingProxyType(self.subject.claims) if self.subject is not None else _NOTHING

    @property
    def labels(self) -> frozenset[str]:
        """`security.labels`."""
        return self._security.labels if self._security is not None else frozenset()

    @property
    def classification(self) -> str | None:
        """`security.classification`."""
        return self._security.classification if self._security is not None else None

    @property
    def delegation(self) -> DelegationExtension | None:
        """The chain of delegations."""
        return self._extensions.delegation if self._extensions is not None else None

    @property
    def tags(self) -> frozenset[str]:
        """`meta.tags`."""
        meta = self._extensions.meta if self._extensions is not None else None
        return meta.tags if meta is not None else frozenset()

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the request as the host received them, credentials included; read-only."""
        http = self._extensions.http if self._extensions is not None else None
        return MappingProxyType(http.headers) if http is not None else _NOTHING

    @property
    def agent_input(self) -> str | None:
        """`agent.input`: what the user originally asked for."""
        return self._agent.input if self._agent is not None else None

    @property
    def session_id(self) -> str | None:
        """`agent.session_id`."""
        return self._agent.session_id if self._agent is not None else None

    @property
    def conversation_id(self) -> str | None:
        """`agent.conversation_id`."""
        return self._agent.conversation_id if self._agent is not None else None

    @property
    def turn(self) -> int | None:
        """`agent.turn`, counted from zero."""
        return self._agent.turn if self._agent is not None else None

    @property
    def agent_id(self) -> str | None:
        """`agent.agent_id`."""
        return self._agent.agent_id if self._agent is not None else None

    @property
    def parent_agent_id(self) -> str | None:
        """`agent.parent_agent_id`."""
        return self._agent.parent_agent_id if self._agent is not None else None

    def has_role(self, role: str) -> bool:
        """Whether the subject has a role."""
        return role in self.roles

    def has_permission(self, permission: str) -> bool:
        """Whether the subject has a permission."""
        return permission in self.permissions

    def has_label(self, label: str) -> bool:
        """Whether the request carries a label."""
        return label in self.labels

    def get_header(self, name: str, default: str | None = None) -> str | None:
        """A header, whatever the case of its name; `default` when there is none."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), default)

    def has_header(self, name: str) -> bool:
        """Whether there is a header of that name, be it empty."""
        return self.get_header(name) is not None
