"""A manager that runs for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from cpex.framework import PluginConfig, TenantPluginManager
from cpex.framework.models import Config

PATIENT_S = 120
"""Longer than the drain of any sink here, which the end of a shutdown would cut off."""
Running = Callable[..., AbstractAsyncContextManager[TenantPluginManager]]


@asynccontextmanager
async def _running(*plugins: dict[str, Any]) -> AsyncIterator[TenantPluginManager]:
    entries = [PluginConfig.model_validate({"shutdown_timeout_s": PATIENT_S} | each) for each in plugins]
    manager = TenantPluginManager(Config(plugins=entries))
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()


@pytest.fixture
def running() -> Running:
    """`async with running({plugin}, …) as manager`; at its end all background work has been done."""
    return _running


@pytest.fixture
def allow_list() -> dict[str, Any]:
    """A sequential plugin that lets `search` through only."""
    return {
        "name": "allow",
        "kind": "cpex.builtins.security.tool_allow_list.ToolAllowListPlugin",
        "hooks": ["tool_pre_invoke"],
        "priority": 1,
        "config": {"allowed_tools": ["search"]},
    }


@pytest.fixture
def redactor() -> dict[str, Any]:
    """A transform plugin that takes e-mail addresses out."""
    return {
        "name": "redactor",
        "kind": "cpex.builtins.privacy.pii_redaction.PIIRedactionPlugin",
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "mode": "transform",
    }
