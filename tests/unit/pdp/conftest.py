from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pdp_servers import Engine, PdpServer, running


@pytest.fixture
def serve() -> Iterator[Callable[[Engine], PdpServer]]:
    """Start servers that end with the test."""
    with ExitStack() as stack:
        yield lambda engine: stack.enter_context(running(engine))
