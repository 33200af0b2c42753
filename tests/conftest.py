"""What all tests share: the mark that ties a test to a required behaviour, and patience with busy machines."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong: how long an example takes is nothing that a test may judge.
settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers", "conformance(*ids): the test holds these behaviours of tests/conformance/manifest.yaml"
    )
