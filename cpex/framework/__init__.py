"""All that a host or a plugin author imports.

Names load on first use: a plugin author who needs the models does not pay for loaders and managers. `__all__` is the
promise; the submodules are reachable as attributes as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.base import Plugin
    from cpex.framework.decorator import hook
    from cpex.framework.errors import (
        DenialExecutionRecord,
        DenialOutcome,
        PluginError,
        PluginViolationError,
    )
    from cpex.framework.external.server import ExternalPluginServer
    from cpex.framework.hooks.agents import (
        AgentHookType,
        AgentPostInvokePayload,
        AgentPostInvokeResult,
        AgentPreInvokePayload,
        AgentPreInvokeResult,
    )
    from cpex.framework.hooks.http import (
        HttpAuthCheckPermissionPayload,
        HttpAuthCheckPermissionResult,
        HttpAuthCheckPermissionResultPayload,
        HttpAuthResolveUserPayload,
        HttpAuthResolveUserResult,
        HttpHeaderPayload,
        HttpHookType,
        HttpPostRequestPayload,
        HttpPostRequestResult,
        HttpPreRequestPayload,
        HttpPreRequestResult,
    )
    from cpex.framework.hooks.lists import (
        ListHookType as ListHookType,
    )
    from cpex.framework.hooks.lists import (
        PromptListPayload as PromptListPayload,
    )
    from cpex.framework.hooks.lists import (
        PromptListResult as PromptListResult,
    )
    from cpex.framework.hooks.lists import (
        ResourceListPayload as ResourceListPayload,
    )
    from cpex.framework.hooks.lists import (
        ResourceListResult as ResourceListResult,
    )
    from cpex.framework.hooks.lists import (
        ToolListPayload as ToolListPayload,
    )
    from cpex.framework.hooks.lists import (
        ToolListResult as ToolListResult,
    )
    from cpex.framework.hooks.policies import HookPayloadPolicy as HookPayloadPolicy
    from cpex.framework.hooks.prompts import (
        PromptHookType,
        PromptPosthookPayload,
        PromptPosthookResult,
        PromptPrehookPayload,
        PromptPrehookResult,
    )
    from cpex.framework.hooks.registry import HookRegistry, get_hook_registry
    from cpex.framework.hooks.resources import (
        ResourceHookType,
        ResourcePostFetchPayload,
        ResourcePostFetchResult,
        ResourcePreFetchPayload,
        ResourcePreFetchResult,
    )
    from cpex.framework.hooks.tools import (
        ToolHookType,
        ToolPostInvokePayload,
        ToolPostInvokeResult,
        ToolPreInvokePayload,
        ToolPreInvokeResult,
    )
    from cpex.framework.loader.config import ConfigLoader
    from cpex.framework.loader.plugin import PluginLoader
    from cpex.framework.manager import PluginManager, TenantPluginManager, get_plugin_manager
    from cpex.framework.models.config import PluginCondition, PluginConfig
    from cpex.framework.models.context import GlobalContext, PluginContext, PluginContextTable, UserContext
    from cpex.framework.models.mode import ControlExecutionStatus, OnError, PluginMode, TransportType
    from cpex.framework.models.outcome import HookOutcome as HookOutcome
    from cpex.framework.models.payload import PluginPayload
    from cpex.framework.models.record import ControlExecutionRecord
    from cpex.framework.models.result import PluginErrorModel, PluginResult, PluginViolation
    from cpex.framework.models.transport import MCPClientConfig, MCPServerConfig
    from cpex.framework.observability import ObservabilityProvider
    from cpex.framework.utils import get_attr

_HOMES: dict[str, tuple[str, ...]] = {
    "base": ("Plugin",),
    "decorator": ("hook",),
    "errors": ("DenialExecutionRecord", "DenialOutcome", "PluginError", "PluginViolationError"),
    "external.server": ("ExternalPluginServer",),
    "hooks.agents": (
        "AgentHookType",
        "AgentPostInvokePayload",
        "AgentPostInvokeResult",
        "AgentPreInvokePayload",
        "AgentPreInvokeResult",
    ),
    "hooks.http": (
        "HttpAuthCheckPermissionPayload",
        "HttpAuthCheckPermissionResult",
        "HttpAuthCheckPermissionResultPayload",
        "HttpAuthResolveUserPayload",
        "HttpAuthResolveUserResult",
        "HttpHeaderPayload",
        "HttpHookType",
        "HttpPostRequestPayload",
        "HttpPostRequestResult",
        "HttpPreRequestPayload",
        "HttpPreRequestResult",
    ),
    "hooks.identity": (
        "AttenuationConfig",
        "DelegationPayload",
        "DelegationResult",
        "IdentityHookType",
        "IdentityPayload",
        "IdentityResolveResult",
        "IdentityResult",
        "TokenDelegateResult",
    ),
    "hooks.message": ("CmfHookType", "MessageHookType", "MessagePayload", "MessageResult"),
    "hooks.lists": (
        "ListHookType",
        "PromptListPayload",
        "PromptListResult",
        "ResourceListPayload",
        "ResourceListResult",
        "ToolListPayload",
        "ToolListResult",
    ),
    "hooks.policies": ("HookPayloadPolicy",),
    "hooks.prompts": (
        "PromptHookType",
        "PromptPosthookPayload",
        "PromptPosthookResult",
        "PromptPrehookPayload",
        "PromptPrehookResult",
    ),
    "hooks.registry": ("HookRegistry", "get_hook_registry"),
    "hooks.resources": (
        "ResourceHookType",
        "ResourcePostFetchPayload",
        "ResourcePostFetchResult",
        "ResourcePreFetchPayload",
        "ResourcePreFetchResult",
    ),
    "hooks.tools": (
        "ToolHookType",
        "ToolPostInvokePayload",
        "ToolPostInvokeResult",
        "ToolPreInvokePayload",
        "ToolPreInvokeResult",
    ),
    "loader.config": ("ConfigLoader",),
    "loader.plugin": ("PluginLoader",),
    "manager": ("PluginManager", "TenantPluginManager", "get_plugin_manager"),
    "models.config": ("PluginCondition", "PluginConfig"),
    "models.context": ("GlobalContext", "PluginContext", "PluginContextTable", "UserContext"),
    "models.mode": ("ControlExecutionStatus", "OnError", "PluginMode", "TransportType"),
    "models.outcome": ("HookOutcome",),
    "models.payload": ("PluginPayload",),
    "models.record": ("ControlExecutionRecord",),
    "models.result": ("PluginErrorModel", "PluginResult", "PluginViolation"),
    "models.transport": ("MCPClientConfig", "MCPServerConfig"),
    "observability": ("ObservabilityProvider",),
    "utils": ("get_attr",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_SUBMODULES = frozenset(
    {
        "base",
        "clock",
        "cmf",
        "constants",
        "decorator",
        "errors",
        "extensions",
        "external",
        "guard",
        "hooks",
        "loader",
        "manager",
        "memory",
        "models",
        "observability",
        "pdp",
        "pipeline",
        "protocols",
        "registry",
        "settings",
        "utils",
        "validators",
    }
)

__all__ = [
    "AgentHookType",
    "AgentPostInvokePayload",
    "AgentPostInvokeResult",
    "AgentPreInvokePayload",
    "AgentPreInvokeResult",
    "ConfigLoader",
    "ControlExecutionRecord",
    "ControlExecutionStatus",
    "DenialExecutionRecord",
    "DenialOutcome",
    "ExternalPluginServer",
    "GlobalContext",
    "HookRegistry",
    "HttpAuthCheckPermissionPayload",
    "HttpAuthCheckPermissionResult",
    "HttpAuthCheckPermissionResultPayload",
    "HttpAuthResolveUserPayload",
    "HttpAuthResolveUserResult",
    "HttpHeaderPayload",
    "HttpHookType",
    "HttpPostRequestPayload",
    "HttpPostRequestResult",
    "HttpPreRequestPayload",
    "HttpPreRequestResult",
    "MCPClientConfig",
    "MCPServerConfig",
    "ObservabilityProvider",
    "OnError",
    "Plugin",
    "PluginCondition",
    "PluginConfig",
    "PluginContext",
    "PluginContextTable",
    "PluginError",
    "PluginErrorModel",
    "PluginLoader",
    "PluginManager",
    "PluginMode",
    "PluginPayload",
    "PluginResult",
    "PluginViolation",
    "PluginViolationError",
    "PromptHookType",
    "PromptPosthookPayload",
    "PromptPosthookResult",
    "PromptPrehookPayload",
    "PromptPrehookResult",
    "ResourceHookType",
    "ResourcePostFetchPayload",
    "ResourcePostFetchResult",
    "ResourcePreFetchPayload",
    "ResourcePreFetchResult",
    "TenantPluginManager",
    "ToolHookType",
    "ToolPostInvokePayload",
    "ToolPostInvokeResult",
    "ToolPreInvokePayload",
    "ToolPreInvokeResult",
    "TransportType",
    "UserContext",
    "get_attr",
    "get_hook_registry",
    "get_plugin_manager",
    "hook",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_SUBMODULES})
