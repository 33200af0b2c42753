"""What a plugin is told about the request, and where it keeps what it learns."""

from __future__ import annotations

from datetime import datetime
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, Field, field_validator

from cpex.framework.models.lazy import PENDING, Defaults, LazyModel, set_raw_dict

MAX_CONTENT_TYPE_LENGTH = 200
"""Characters."""


class UserContext(BaseModel):
    """Who is asking, as the host has authenticated them."""

    user_id: str
    email: str | None = None
    full_name: str | None = None
    is_admin: bool = False
    groups: list[str] = Field(default_factory=list)
    roles: list[str] = Field(default_factory=list)
    team_id: str | None = None
    teams: list[str] | None = None
    department: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)
    auth_method: str | None = None
    authenticated_at: datetime | None = None
    service_account: str | None = None
    delegation_chain: list[str] = Field(default_factory=list)


class GlobalContext(LazyModel):
    """What all plugins of one request share.

    Each plugin sees a copy. Keys that it writes into or deletes from `state` and `metadata` come back to the host's
    object when its mode may write (sequential, transform, concurrent); nothing else does.
    """

    # Engine bookkeeping, outside the fields: what `state` and `metadata` held when the plugin's copy was made.
    __slots__ = ("_cpex_baseline",)

    request_id: str
    user: str | dict[str, Any] | None = None
    user_context: UserContext | None = None
    tenant_id: str | None = None
    server_id: str | None = None
    content_type: str | None = None
    state: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)

    if not TYPE_CHECKING:
        # Hidden from type checkers, which know the signature from the fields.
        def __init__(self, /, **data: Any) -> None:
            # Hosts make one for each call. Of an id and other texts, which need no validation, it is made without: the
            # rest follows when somebody looks.
            if type(self) is GlobalContext and type(data.get("request_id")) is str:
                defaults = _BESIDE_ID if len(data) == 1 else _beside_texts(data)
                if defaults is not None:
                    data[PENDING] = defaults
                    set_raw_dict(self, data)
                    return
            super().__init__(**data)

        # Pydantic's own mark: validating into this class need not come through here.
        __init__.__pydantic_base_init__ = True

    @field_validator("content_type")
    @classmethod
    def _check_content_type(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if len(value) > MAX_CONTENT_TYPE_LENGTH:
            raise ValueError(f"content type is too long ({len(value)} characters; at most {MAX_CONTENT_TYPE_LENGTH})")
        if not value.isprintable():
            raise ValueError("content type contains invalid characters; only printable ones are allowed")
        return value


_BESIDE_ID = Defaults(GlobalContext, ("request_id",))
# By the names that are given, in the order in which they are.
_BESIDE_TEXTS = {
    names: Defaults(GlobalContext, names)
    for number in range(2, 5)
    for names in permutations(("request_id", "user", "tenant_id", "server_id"), number)
    if "request_id" in names
}


def _beside_texts(data: dict[str, Any]) -> Defaults | None:
    """The defaults beside what is given, when that is nothing but texts that need no validation."""
    return _BESIDE_TEXTS.get((*data,)) if all(type(value) is str for value in data.values()) else None


class PluginContext(LazyModel):
    """One plugin's view of one request; it lives from the request's first hook to its last."""

    # Engine bookkeeping, outside the fields: a weak reference to the hook call that handed it out last.
    __slots__ = ("_cpex_holder",)

    global_context: GlobalContext
    state: dict[str, Any] = Field(default_factory=dict)
    """The plugin's own, carried from pre to post hook."""
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def user_context(self) -> UserContext | None:
        """The authenticated user, when the host has told."""
        return self.global_context.user_context

    @property
    def user_email(self) -> str | None:
        """The user's e-mail address: the user context's when there is one, else what `user` says."""
        if (context := self.global_context.user_context) is not None:
            return context.email
        user = self.global_context.user
        if isinstance(user, dict):
            return user.get("email")
        return user

    @property
    def user_groups(self) -> list[str]:
        """The user's groups; empty without a user context."""
        context = self.global_context.user_context
        return context.groups if context is not None else []

    def get_state(self, key: str, default: Any = None) -> Any:
        """Read a value that this plugin stored earlier in the request."""
        return self.state.get(key, default)

    def set_state(self, key: str, value: Any) -> None:
        """Store a value for this plugin's later hooks in the same request."""
        self.state[key] = value

    async def cleanup(self) -> None:
        """Forget this plugin's own state and metadata."""
        self.state.clear()
        self.metadata.clear()

    def is_empty(self) -> bool:
        """Whether there is nothing in own state, own metadata or the shared state."""
        return not (self.state or self.metadata or self.global_context.state)


PluginContextTable: TypeAlias = dict[str, PluginContext]
"""`{request_id + plugin id: context}`; the keys are opaque."""
