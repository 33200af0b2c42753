"""What the tests of guards share: a configuration in one line, and a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cpex.framework import GlobalContext, PluginConfig, PluginContext

Configure = Callable[..., PluginConfig]


@pytest.fixture
def configure() -> Configure:
    """Make a plugin's configuration from its settings; without any, `config` is left out."""

    def make(**settings: Any) -> PluginConfig:
        hooks = ["tool_pre_invoke", "tool_post_invoke"]
        return PluginConfig(name="guard", kind="x.Y", hooks=hooks, config=settings or None)

    return make


@pytest.fixture
def context() -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id="r1"))
