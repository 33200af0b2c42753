"""Hook families (names, payloads, results), the registry of hooks, and write policies."""

from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.hooks.registry import HookRegistry, get_hook_registry

__all__ = ["HookPayloadPolicy", "HookRegistry", "get_hook_registry"]
