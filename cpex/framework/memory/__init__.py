"""Isolation: private copies, views of the host's objects, and the byte budget of a payload."""

from typing import Any

from cpex.framework.memory.containers import CopyOnWriteDict, CopyOnWriteList, copyonwrite
from cpex.framework.memory.grafting import graft
from cpex.framework.memory.views import wrap_payload_for_isolation
from cpex.framework.models.copying import copy_tree

__all__ = [
    "CopyOnWriteDict",
    "CopyOnWriteList",
    "copy_tree",
    "copyonwrite",
    "graft",
    "wrap_payload_for_isolation",
]


def _wrap_value(value: Any) -> Any:
    """Wrap a container for tracked editing, copy anything else that could be changed."""
    return copyonwrite(value) if isinstance(value, dict | list) else copy_tree(value)


def _safe_deepcopy(value: Any) -> Any:
    """Copy at every depth, sharing (with a warning) what cannot be copied."""
    return copy_tree(value)
