"""What a host says of a request, and what the guard asks of a manager."""

from __future__ import annotations

import uuid
from typing import Any, Literal, Protocol, TypedDict

from cpex.framework.extensions import Extensions
from cpex.framework.models.context import GlobalContext, PluginContextTable, UserContext
from cpex.framework.models.coverage import CoverageConfig
from cpex.framework.models.result import PluginResult

__all__ = ["Guarded", "OnDenial", "RequestFacts", "check_names", "checked", "context_of"]

OnDenial = Literal["raise", "return"]
"""What a denial is to the caller: a `PluginViolationError`, or the `PluginViolation` in the place of the result."""


class Guarded(Protocol):
    """What the guard needs of a manager."""

    @property
    def initialized(self) -> bool:
        """Whether plugins are running."""

    @property
    def config(self) -> Any:
        """The configuration, if there is one."""

    @property
    def generation(self) -> int:
        """Grows whenever a plugin comes or goes."""

    def has_hooks_for(self, hook_type: str) -> bool:
        """Whether a plugin handles the hook."""

    def is_watched(self, hook_type: str) -> bool:
        """Whether a call of the hook would concern any plugin."""

    async def invoke_hook(
        self,
        hook_type: str,
        payload: Any,
        global_context: GlobalContext,
        local_contexts: PluginContextTable | None = None,
        violations_as_exceptions: bool = False,
        extensions: Extensions | None = None,
    ) -> tuple[PluginResult[Any], PluginContextTable | None]:
        """Call a hook."""


class RequestFacts(TypedDict, total=False):
    """What a host says of a request; everything may be left out."""

    user: str | dict[str, Any] | None
    """Who asks: an id or e-mail address, or a dict with one."""
    user_context: UserContext | None
    tenant_id: str | None
    server_id: str | None
    """The server whose tools are called; the namespace of tools in `cmf.*` messages."""
    session_id: str | None
    """The conversation; goes to `metadata["session_id"]` of the global context."""
    request_id: str
    """Made up when it is left out: 32 hexadecimal digits."""
    content_type: str | None
    metadata: dict[str, Any]
    context: GlobalContext
    """A finished context, instead of all the above."""
    contexts: PluginContextTable | None
    """What plugins kept in earlier hooks of the request that the host called itself."""
    extensions: Extensions | None
    on_denial: OnDenial
    coverage: CoverageConfig | None
    """Instead of the configuration's `coverage`."""


def check_names(facts: RequestFacts) -> None:
    """See that a request knows all that it is told.

    Raises:
        TypeError: It does not know one of the names.
    """
    if not facts.keys() <= _NAMES:
        from cpex.framework.loader.suggest import did_you_mean

        # SECURITY: dropped in silence, it would keep a guard from knowing whose request it is.
        name = min(facts.keys() - _NAMES)
        raise TypeError(f"a request knows no `{name}`; {did_you_mean(name, sorted(_NAMES))}")


def checked(on_denial: OnDenial) -> OnDenial:
    """What the host wants of a denial.

    Raises:
        ValueError: It is neither word.
    """
    if on_denial not in ("raise", "return"):
        raise ValueError(f"on_denial must be `raise` or `return`, not {on_denial!r}")
    return on_denial


def context_of(facts: RequestFacts) -> GlobalContext:
    """The context that plugins share, made of the facts or given among them.

    Raises:
        ValueError: It was given beside one of its parts.
    """
    # mypy: a loop's variable is no literal; each of the names is a key of the facts.
    parts = {name: facts[name] for name in _PARTS if name in facts}  # type: ignore[literal-required]
    if "context" in facts:
        if parts:
            raise ValueError(f"give a request either `context` or its parts ({', '.join(parts)}), not both")
        return facts["context"]
    session = parts.pop("session_id", None)
    parts.setdefault("request_id", uuid.uuid4().hex)
    if session is not None:
        parts["metadata"] = {**parts.get("metadata", {}), "session_id": session}
    return GlobalContext(**{name: value for name, value in parts.items() if value is not None})


_PARTS = ("request_id", "user", "user_context", "tenant_id", "server_id", "session_id", "content_type", "metadata")
_NAMES = RequestFacts.__optional_keys__
