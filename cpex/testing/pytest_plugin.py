"""Fixtures for tests of plugins, there as soon as cpex is installed.

Pytest loads this in every project that has cpex installed, so it imports the framework only when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cpex.framework.clock import FixedClock
    from cpex.testing.harness import PluginHarness

__all__ = ["cpex_clock", "fresh_cpex", "plugin_harness"]


@pytest.fixture
def cpex_clock() -> Iterator[FixedClock]:
    """The framework's clock of this test, standing at noon of 1 January 2030 (UTC) until it is moved."""
    from cpex.framework.clock import FixedClock, use_clock
    from cpex.testing.harness import START

    with use_clock(FixedClock(START)) as clock:
        assert isinstance(clock, FixedClock)
        yield clock


@pytest.fixture
def plugin_harness(cpex_clock: FixedClock) -> Iterator[Callable[..., PluginHarness]]:
    """Make harnesses: `async with plugin_harness(MyPlugin, config={...}) as harness`. They share `cpex_clock`.

    The test fails when it leaves one open.
    """
    from cpex.testing.harness import PluginHarness

    made: list[PluginHarness] = []

    def make(*plugins: Any, **options: Any) -> PluginHarness:
        made.append(PluginHarness(*plugins, **{"clock": cpex_clock, **options}))
        return made[-1]

    yield make
    if any(harness.manager.initialized for harness in made):
        pytest.fail("a harness was entered and never left; use `async with plugin_harness(...)`", pytrace=False)


@pytest.fixture
def fresh_cpex() -> Iterator[None]:
    """Give a test of a host a process-wide manager and settings of its own, and forget them afterwards."""
    from cpex.framework.manager import PluginManager
    from cpex.framework.settings import settings

    def forget() -> None:
        PluginManager.reset()
        settings.cache_clear()

    forget()
    yield
    forget()
