"""Settings for the conformance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cpex.framework import PluginManager
from cpex.framework.settings import settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Sets a variable of the environment and has the settings read again."""

    def put(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        settings.cache_clear()

    settings.cache_clear()
    yield put
    settings.cache_clear()


@pytest.fixture
def shared_manager() -> Iterator[type[PluginManager]]:
    """The manager of the process, with no state before and after."""
    PluginManager.reset()
    yield PluginManager
    PluginManager.reset()
