from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from cpex.framework.utils import import_module


@pytest.fixture(autouse=True)
def _imports_are_undone() -> Iterator[None]:
    """Modules and search paths that a test adds belong to that test."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    # Plugin modules of these tests begin with `e_`, and the loader's private names with `_cpex_`.
    for name in set(sys.modules) - modules:
        if name.startswith(("e_", "_cpex_")):
            del sys.modules[name]
    import_module.cache_clear()
