"""What all tests share: the mark that ties a test to a required behaviour."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers", "conformance(*ids): the test holds these behaviours of tests/conformance/manifest.yaml"
    )
