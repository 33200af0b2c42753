"""The contract: values that cross a hook call, and the configuration that says which plugins see them.

Every model has its public address here and lives in the submodule that it belongs to, which is imported when the model
is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.models.config import (
        AppliedTo,
        BaseTemplate,
        Config,
        PluginCondition,
        PluginConfig,
        PromptTemplate,
        ResourceTemplate,
        ToolTemplate,
    )
    from cpex.framework.models.context import GlobalContext, PluginContext, PluginContextTable, UserContext
    from cpex.framework.models.manifest import (
        GitRepo,
        InstalledPluginInfo,
        InstalledPluginRegistry,
        Monorepo,
        PluginManifest,
        PluginPackageInfo,
        PluginVersionInfo,
        PluginVersionRegistry,
        PyPiRepo,
    )
    from cpex.framework.models.mode import (
        ControlExecutionStatus,
        OnError,
        PluginInstallationType,
        PluginMode,
        TransportType,
    )
    from cpex.framework.models.outcome import HookOutcome
    from cpex.framework.models.payload import PluginPayload
    from cpex.framework.models.record import ControlExecutionRecord
    from cpex.framework.models.result import PluginErrorModel, PluginResult, PluginViolation
    from cpex.framework.models.tls import (
        GRPCClientTLSConfig,
        GRPCServerTLSConfig,
        MCPClientTLSConfig,
        MCPServerTLSConfig,
        MCPTransportTLSConfigBase,
    )
    from cpex.framework.models.transport import (
        GRPCClientConfig,
        GRPCServerConfig,
        MCPClientConfig,
        MCPServerConfig,
        UnixSocketClientConfig,
        UnixSocketServerConfig,
    )
    from cpex.framework.models.truncation import (
        _MAX_CONFIG_KEYS as _MAX_CONFIG_KEYS,
    )
    from cpex.framework.models.truncation import (
        _MAX_STRING_LEN as _MAX_STRING_LEN,
    )
    from cpex.framework.models.truncation import (
        _collect_config_keys as _collect_config_keys,
    )
    from cpex.framework.models.truncation import (
        _truncate as _truncate,
    )
    from cpex.framework.models.truncation import (
        _truncate_opt as _truncate_opt,
    )

__all__ = [
    "AppliedTo",
    "BaseTemplate",
    "Config",
    "ControlExecutionRecord",
    "ControlExecutionStatus",
    "GRPCClientConfig",
    "GRPCClientTLSConfig",
    "GRPCServerConfig",
    "GRPCServerTLSConfig",
    "GitRepo",
    "GlobalContext",
    "HookOutcome",
    "InstalledPluginInfo",
    "InstalledPluginRegistry",
    "MCPClientConfig",
    "MCPClientTLSConfig",
    "MCPServerConfig",
    "MCPServerTLSConfig",
    "MCPTransportTLSConfigBase",
    "Monorepo",
    "OnError",
    "PluginCondition",
    "PluginConfig",
    "PluginContext",
    "PluginContextTable",
    "PluginErrorModel",
    "PluginInstallationType",
    "PluginManifest",
    "PluginMode",
    "PluginPackageInfo",
    "PluginPayload",
    "PluginResult",
    "PluginVersionInfo",
    "PluginVersionRegistry",
    "PluginViolation",
    "PromptTemplate",
    "PyPiRepo",
    "ResourceTemplate",
    "ToolTemplate",
    "TransportType",
    "UnixSocketClientConfig",
    "UnixSocketServerConfig",
    "UserContext",
]

_NAMES = {
    "config": "AppliedTo BaseTemplate Config PluginCondition PluginConfig PromptTemplate ResourceTemplate ToolTemplate",
    "context": "GlobalContext PluginContext PluginContextTable UserContext",
    "manifest": "GitRepo InstalledPluginInfo InstalledPluginRegistry Monorepo PluginManifest PluginPackageInfo "
    "PluginVersionInfo PluginVersionRegistry PyPiRepo",
    "mode": "ControlExecutionStatus OnError PluginInstallationType PluginMode TransportType",
    "outcome": "HookOutcome",
    "payload": "PluginPayload",
    "record": "ControlExecutionRecord",
    "result": "PluginErrorModel PluginResult PluginViolation",
    "tls": "GRPCClientTLSConfig GRPCServerTLSConfig MCPClientTLSConfig MCPServerTLSConfig MCPTransportTLSConfigBase",
    "transport": "GRPCClientConfig GRPCServerConfig MCPClientConfig MCPServerConfig UnixSocketClientConfig "
    "UnixSocketServerConfig",
    "truncation": "_MAX_CONFIG_KEYS _MAX_STRING_LEN _collect_config_keys _truncate _truncate_opt",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # Lazy, because `extensions` uses `models.lazy` while `models.result` uses `extensions`: whoever imports one of them
    # first must not be drawn through the other.
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
