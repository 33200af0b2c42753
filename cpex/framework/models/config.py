"""The configuration: which plugins there are, how each runs, and when.

These models check values and their combinations. They let unknown keys pass, because remote hosts and workers send
configurations of other versions; strictness towards what an operator writes lives in the loader, which knows places.

Source: docs/reference/configuration.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from cpex.framework.constants import EXTERNAL_PLUGIN_TYPE, IGNORE_CONFIG_EXTERNAL
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.coverage import CoverageConfig
from cpex.framework.models.mode import OnError, PluginMode, TransportType
from cpex.framework.models.transport import (
    GRPCClientConfig,
    GRPCServerConfig,
    MCPClientConfig,
    MCPServerConfig,
    UnixSocketClientConfig,
    UnixSocketServerConfig,
)

__all__ = [
    "AppliedTo",
    "BaseTemplate",
    "Config",
    "PluginCondition",
    "PluginConfig",
    "PromptTemplate",
    "ResourceTemplate",
    "ToolTemplate",
]

LEGACY_MODES: Mapping[str, Mapping[str, str]] = {
    "enforce": {"mode": "sequential"},
    "permissive": {"mode": "transform"},
    "enforce_ignore_error": {"mode": "sequential", "on_error": "ignore"},
}
"""Mode words of older configurations, and what they mean now."""

EXTRA_CAPABILITIES = frozenset({"read_inbound_credentials", "read_delegated_tokens"})
"""Capabilities beside those of the extension tiers."""

_ENTITY_SETS = ("server_ids", "tenant_ids", "tools", "prompts", "resources", "agents")


def base_content_type(content_type: object) -> str:
    """A content type without its parameters, trimmed and in lower case; empty for what is no text."""
    return content_type.partition(";")[0].strip().lower() if isinstance(content_type, str) else ""


class PluginCondition(BaseModel):
    """When a plugin runs: everything that is given must hold. What is `None` or empty asks for nothing."""

    model_config = ConfigDict(defer_build=True)

    server_ids: set[str] | None = None
    """Exact ids of servers."""
    tenant_ids: set[str] | None = None
    """Exact ids of tenants."""
    tools: set[str] | None = None
    """Exact tool names."""
    prompts: set[str] | None = None
    """Exact ids of prompts."""
    resources: set[str] | None = None
    """Exact URIs."""
    agents: set[str] | None = None
    """Exact ids of agents."""
    user_patterns: list[str] | None = None
    """Parts of a user name; a user given as a dict is known by its `email`, `id`, `user_id` and `name`."""
    content_types: list[str] | None = None
    """Kept without parameters and in lower case."""

    @field_validator("content_types")
    @classmethod
    def _normalize_content_types(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else [base_content_type(each) for each in value]

    @field_serializer(*_ENTITY_SETS)
    def _dump_set(self, value: set[str] | None) -> list[str] | None:
        return sorted(value) if value else None


class BaseTemplate(BaseModel):
    """What a plugin may look at, for plugins that are told so by configuration."""

    model_config = ConfigDict(defer_build=True)

    context: list[str] | None = None
    """Keys of the request's context."""
    extensions: dict[str, Any] | None = None
    """Slots of the request's extensions."""


class ToolTemplate(BaseTemplate):
    """Fields of one tool's calls."""

    tool_name: str
    """The tool's name."""
    fields: list[str] | None = None
    """Fields of the request; `None` means all."""
    result: bool = False
    """Whether the answer is meant as well."""


class PromptTemplate(BaseTemplate):
    """Fields of one prompt."""

    prompt_name: str
    """The prompt's name."""
    fields: list[str] | None = None
    """Fields of the request; `None` means all."""
    result: bool = False
    """Whether the answer is meant as well."""


class ResourceTemplate(BaseTemplate):
    """Fields of one resource."""

    resource_uri: str
    """The resource's URI."""
    fields: list[str] | None = None
    """Fields of the request; `None` means all."""
    result: bool = False
    """Whether the answer is meant as well."""


class AppliedTo(BaseModel):
    """What a plugin applies to. Read by plugins; the framework only carries it."""

    model_config = ConfigDict(defer_build=True)

    tools: list[ToolTemplate] | None = None
    """Which calls of which tools."""
    prompts: list[PromptTemplate] | None = None
    """Which prompts."""
    resources: list[ResourceTemplate] | None = None
    """Which resources."""


class PluginConfig(BaseModel):
    """One plugin: what it is, when and how it runs, what it may see. Frozen.

    An overlay is `config.model_copy(update={...})`, which checks nothing.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    """What logs, records and violations call the plugin; unique in the file."""
    description: str | None = None
    """For people."""
    author: str | None = None
    """For people."""
    kind: str
    """A dotted class path, a registered name, `external` or `isolated_venv`."""
    namespace: str | None = None
    """For people."""
    version: str | None = None
    """Of the plugin; for people."""
    hooks: list[str] = Field(default_factory=list)
    """Only these hooks reach the plugin."""
    tags: list[str] = Field(default_factory=list)
    """Free labels, for people and hosts."""
    mode: PluginMode = PluginMode.SEQUENTIAL
    """The phase that the plugin runs in, and so what it may do."""
    on_error: OnError = OnError.FAIL
    """What a failure of the plugin means: for the call, and for the start."""
    priority: int = 100
    """Lower runs earlier within a phase."""
    max_content_size: int = Field(default=10_000_000, gt=0)
    """Bytes of payload content that the plugin is willing to take; more is its failure."""
    conditions: list[PluginCondition] = Field(default_factory=list)
    """The plugin runs when one of them holds; empty means always."""
    applied_to: AppliedTo | None = None
    """What the plugin applies to. Read by plugins; the framework only carries it."""
    capabilities: frozenset[str] = frozenset()
    """Which extension slots the plugin may read and write. One name may be given bare."""
    config: dict[str, Any] | None = None
    """The plugin's own settings, which it checks itself."""
    mcp: MCPClientConfig | None = None
    """How a plugin of kind `external` is reached over MCP."""
    grpc: GRPCClientConfig | None = None
    """How it is reached over gRPC."""
    unix_socket: UnixSocketClientConfig | None = None
    """How it is reached over a plain Unix socket."""
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds per call; `None` means the manager's."""
    initialize_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds for the plugin's `initialize`."""
    shutdown_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds for the plugin's `shutdown`; then it is given up."""
    disable_cooldown_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds until a plugin that `on_error: disable` has switched off gets one trial call; `None` means never."""
    scope_mapping: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """`{audience: {scope: [scopes]}}`: what a scope may become where the plugin delegates to another audience."""

    @model_validator(mode="before")
    @classmethod
    def _migrate_legacy_mode(cls, data: Any) -> Any:
        mode = data.get("mode") if isinstance(data, dict) else None
        meaning = LEGACY_MODES.get(mode) if isinstance(mode, str) else None
        if meaning is None:
            return data
        # What the configuration says about errors wins over what the old word implied; the caller's dict is left alone.
        return {**meaning, **data, "mode": meaning["mode"]}

    @field_validator("capabilities", mode="before")
    @classmethod
    def _check_capabilities(cls, value: Any) -> Any:
        if value is None:
            return frozenset()
        if isinstance(value, str):
            value = [value]
        if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
            raise ValueError("capabilities must be a list of names")
        names = list(value)
        known = _known_capabilities()
        unknown = [name for name in names if not isinstance(name, str) or name not in known]
        if unknown:
            raise ValueError(f"Unknown capability {_listed(unknown)}; known: {_listed(sorted(known))}")
        # Taken from the known ones, so that enum members are stored as plain strings.
        return frozenset(name for name in known if name in names)

    @field_serializer("capabilities")
    def _dump_capabilities(self, value: frozenset[str]) -> list[str]:
        return sorted(value)

    @model_validator(mode="after")
    def _check_mcp(self) -> Self:
        if self.mcp is None:
            return self
        proto = self.mcp.proto
        if proto is TransportType.STDIO:
            if not self.mcp.script and not self.mcp.cmd:
                raise ValueError(f"Plugin {self.name} has transport type STDIO, which needs 'script' or 'cmd'")
            if self.mcp.script and self.mcp.cmd:
                raise ValueError(f"Plugin {self.name} must set 'script' or 'cmd' for STDIO, not both")
        elif proto not in (TransportType.SSE, TransportType.STREAMABLEHTTP):
            raise ValueError(f"Plugin {self.name} must set transport type to STDIO, SSE or STREAMABLEHTTP")
        elif not self.mcp.url:
            raise ValueError(f"Plugin {self.name} has transport type {proto.value}, which needs 'url'")
        return self

    @model_validator(mode="after")
    def _check_external(self, info: ValidationInfo) -> Self:
        if self.kind != EXTERNAL_PLUGIN_TYPE:
            return self
        fetched = bool((info.context or {}).get(IGNORE_CONFIG_EXTERNAL))
        if self.config and not fetched:
            raise ValueError(
                f"Plugin {self.name} is defined as 'external' with 'config' set; "
                "settings of an external plugin belong into the configuration of its server"
            )
        sections = [section for section in (self.mcp, self.grpc, self.unix_socket) if section is not None]
        if not sections:
            raise ValueError(f"External plugin {self.name} must have 'mcp', 'grpc', or 'unix_socket' section")
        if len(sections) > 1:
            raise ValueError(f"External plugin {self.name} can only have one transport configured; keep one section")
        if self.mcp is not None and self.mcp.proto is TransportType.SSE:
            raise ValueError(
                f"External plugin {self.name} has transport type SSE, which no client speaks; write "
                "`proto: STREAMABLEHTTP` and the address of the server's `/mcp`"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON values."""
        return self.model_dump(mode="json")

    def get_safe_config(self) -> str:
        """Every field as compact JSON text, in the order of declaration."""
        return self.model_dump_json()

    def with_members(self) -> Self:
        """This configuration, or a copy in which texts that nobody validated stand for members.

        Hosts overlay configurations by `model_copy(update={"mode": "audit"})`, which validates nothing.

        Raises:
            ValueError: `mode` or `on_error` is no text of a member.
        """
        if type(self.mode) is PluginMode and type(self.on_error) is OnError:
            return self
        return self.model_copy(update={"mode": PluginMode(self.mode), "on_error": OnError(self.on_error)})

    def private_copy(self) -> Self:
        """A copy that shares nothing that can be changed, so that its holder cannot change this one.

        Objects in `config` that cannot be copied (clients, locks, callables) are shared.
        """
        copied = self.model_copy()
        # Written past the freezing, before anybody else holds the copy.
        copied.__dict__.update(copy_tree(self.__dict__))
        return copied


@cache
def _known_capabilities() -> frozenset[str]:
    # Not at the top: extensions are built on a module of this package.
    from cpex.framework.extensions.tiers import Capability

    return frozenset(each.value for each in Capability) | EXTRA_CAPABILITIES


def _listed(names: Iterable[object]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class Config(BaseModel):
    """A whole configuration: plugins, where their code lies, and limits for all of them.

    `plugin_settings`, which older configurations carry, is let pass and has no effect.
    """

    model_config = ConfigDict(defer_build=True)

    plugins: list[PluginConfig] | None = Field(default_factory=list)
    """The plugins, in the order of their start; `None` when the key is there without a value."""
    plugin_dirs: list[str] = Field(default_factory=list)
    """Folders with plugin code; relative ones are looked for beside the file, then in the working directory."""
    server_settings: MCPServerConfig | None = None
    """Where a server that offers these plugins over MCP listens."""
    grpc_server_settings: GRPCServerConfig | None = None
    """Where one over gRPC listens."""
    unix_socket_server_settings: UnixSocketServerConfig | None = None
    """Where one over a plain Unix socket listens."""
    plugin_timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds per plugin and call, where the plugin does not say otherwise; `None` leaves it to the manager."""
    hook_timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds for a whole hook call; `None` means no limit."""
    max_payload_bytes: int = Field(default=1_000_000, gt=0)
    """Content of a payload: UTF-8 bytes of its texts, and 8 for each other value."""
    background_limit: int = Field(default=1000, ge=0)
    """Background tasks at a time; more are refused."""
    drain_timeout_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds that a shutdown waits for background tasks."""
    coverage: CoverageConfig | None = None
    """Hooks that must run around every operation of a request that goes through the guard."""
