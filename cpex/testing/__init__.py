"""What a plugin author needs to test a plugin: a harness, fakes, payloads with defaults, assertions, a clock.

Nothing here imitates the framework: the harness starts the plugin as a host does and calls it through the same
pipeline, so isolation, modes, conditions, timeouts and clean-up are those of production. Only the clock stands still.

Source: docs/testing-plugins.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.clock import FixedClock
    from cpex.testing.assertions import assert_allowed, assert_changed, assert_denied, assert_unchanged, record_of
    from cpex.testing.fakes import (
        FunctionPlugin,
        RecordingPlugin,
        SpanLog,
        allow,
        crash,
        denial,
        deny,
        never,
        plugin_of,
    )
    from cpex.testing.harness import Part, PluginHarness, configured
    from cpex.testing.payloads import make_context, make_payload

# Pytest imports this package in every project that has cpex installed, so names load on first use.
_HOMES = {
    "cpex.framework.clock": ("FixedClock",),
    "cpex.testing.assertions": ("assert_allowed", "assert_changed", "assert_denied", "assert_unchanged", "record_of"),
    "cpex.testing.fakes": (
        *("FunctionPlugin", "RecordingPlugin", "SpanLog", "plugin_of"),
        *("allow", "crash", "denial", "deny", "never"),
    ),
    "cpex.testing.harness": ("Part", "PluginHarness", "configured"),
    "cpex.testing.payloads": ("make_context", "make_payload"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FixedClock",
    "FunctionPlugin",
    "Part",
    "PluginHarness",
    "RecordingPlugin",
    "SpanLog",
    "allow",
    "assert_allowed",
    "assert_changed",
    "assert_denied",
    "assert_unchanged",
    "configured",
    "crash",
    "denial",
    "deny",
    "make_context",
    "make_payload",
    "never",
    "plugin_of",
    "record_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
