"""What objects of foreign classes hold, whatever these classes say of being equal.

An object may call itself equal to another by an id alone. Whoever asks whether a plugin has changed something needs to
look at what is inside.
"""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["attributes_of", "elements_of", "has_attributes"]

_MISSING = object()
_COMPARED_WHOLE = frozenset({"datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
"""Modules of values that compare by all that they are, and keep what they have worked out in attributes."""


def has_attributes(value: Any) -> bool:
    """Whether an object has a place for attributes of its own."""
    return hasattr(value, "__dict__") or bool(_slots_of(type(value)))


def attributes_of(value: Any) -> dict[str, Any]:
    """Attributes that an object holds, in its dictionary and in slots; those of compiled classes are not seen."""
    if type(value).__module__ in _COMPARED_WHOLE:
        return {}
    slots = {name: _attribute(value, name) for name in _slots_of(type(value))}
    own = _attribute(value, "__dict__")
    return slots if own is _MISSING else slots | own


def elements_of(value: Any) -> dict[Any, Any] | list[Any] | None:
    """What an object of a class derived from a container holds as one, past the methods of that class."""
    if isinstance(value, dict):
        return dict(dict.items(value))
    if isinstance(value, list):
        return list(list.__iter__(value))
    if isinstance(value, tuple):
        return list(tuple.__iter__(value))
    return list(deque.__iter__(value)) if isinstance(value, deque) else None


def _attribute(value: Any, name: str) -> Any:
    # Past whatever the class does when it is asked.
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return _MISSING


def _slots_of(kind: type[Any]) -> list[str]:
    found: list[str] = []
    for cls in kind.__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{cls.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in found if name not in ("__dict__", "__weakref__")]
