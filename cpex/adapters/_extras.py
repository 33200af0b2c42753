"""What an adapter says where its framework is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["needs"]


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around the imports of a framework.

    Raises:
        ImportError: It is not installed; tells which extra brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this adapter needs the package `{error.name}`, which is not installed; `pip install 'cpex[{extra}]'` "
            "brings it"
        ) from error
