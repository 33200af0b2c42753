"""What all tests share: marks that tie them to required behaviours, notes of pages, patience with busy machines."""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any

import doc_blocks
import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong: how long an example takes, or is in the making, is nothing that a test may judge.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers", "conformance(*ids): the test holds these behaviours of tests/conformance/manifest.yaml"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that a page notes as checking a block, and that has not read the block."""
    doc_blocks.READ.clear()
    outcome = yield
    file, _, name = item.nodeid.partition("::")
    left = doc_blocks.unread((file, name.partition("[")[0]), one_page_at_a_time=hasattr(item, "callspec"))
    assert left == [], "pages note these blocks as checked by this test, which has not read them"
    return outcome


def pytest_collection_finish() -> None:
    """Keep what lives as long as the run (modules, collected tests) out of every garbage collection to come.

    Collections walk what there is, and that is most of it: a quarter of the time of tests in this process went there.
    """
    gc.collect()
    gc.freeze()
