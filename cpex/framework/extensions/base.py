"""The common ground of all extension values, and private copies of them.

Extension models are frozen, but what they hold may be a plain dict or list. Whoever hands one out copies it with
`private_copy`, whoever takes one back compares it with `same`. Both understand models, containers and, as far as that
is possible, foreign objects, because `custom` may hold anything.
"""

from __future__ import annotations

import copy
import logging
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from cpex.framework.models.contents import attributes_of, elements_of, has_attributes
from cpex.framework.models.lazy import build

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ATOMS: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes, datetime, frozenset})
"""Exact types that are shared between host and plugins; what is inside a frozenset is hashable and taken as fixed."""
_shared_types: set[type] = set()


class ExtensionModel(BaseModel):
    """Base class of extension values: frozen, so a change is a new value made with `model_copy(update={...})`."""

    model_config = ConfigDict(frozen=True)


def private_copy(value: T) -> T:
    """Copy a value at every depth, sharing what nobody can change.

    An extension model without containers inside is returned itself. An object that cannot be copied (a client, a lock)
    is shared, with one WARNING per type.

    Raises:
        RecursionError: The value is nested deeper than the stack, some hundreds of levels.
    """
    result: T = _copy(value, {})
    return result


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if (done := memo.get(id(value))) is not None:
        return done
    if kind is dict:
        target: Any = {}
        # Entered before its contents, so that a cycle in the original becomes a cycle in the copy.
        memo[id(value)] = target
        target.update((key, _copy(item, memo)) for key, item in value.items())
        return target
    if kind is list:
        target = memo[id(value)] = []
        target.extend(_copy(item, memo) for item in value)
        return target
    if kind is tuple:
        items = tuple(_copy(item, memo) for item in value)
        return value if all(map(_is, items, value)) else items
    if isinstance(value, ExtensionModel) and not value.__pydantic_extra__ and not value.__pydantic_private__:
        return _copy_model(value, memo)
    return _copy_foreign(value, memo)


def _is(one: Any, other: Any) -> bool:
    return one is other


def _copy_model(model: ExtensionModel, memo: dict[int, Any]) -> Any:
    values = model.__dict__
    if _ATOMS.issuperset(map(type, values.values())):
        return model
    copied = {name: _copy(item, memo) for name, item in values.items()}
    if all(map(_is, copied.values(), values.values())):
        return model
    return build(type(model), copied, set(model.model_fields_set))


def _copy_foreign(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except RecursionError:
        # Too deep is not uncopyable: sharing it would let a plugin edit what is the host's.
        raise
    # A foreign object's own copying code runs here; whatever it raises means that the object cannot be copied.
    except Exception as error:
        kind = type(value)
        if kind not in _shared_types:
            _shared_types.add(kind)
            logger.warning(
                "Cannot copy a value of type %s.%s (%s); host and plugins share it",
                kind.__module__,
                kind.__qualname__,
                type(error).__name__,
            )
        return value


def same(old: Any, new: Any) -> bool:
    """Whether two values have the same types and content; a private copy is the same as its original."""
    try:
        return _same(old, new)
    except RecursionError:
        # Cyclic, or deeper than the stack: not being able to tell means that it may have changed.
        return False


def _same(old: Any, new: Any) -> bool:
    if new is old:
        return True
    kind = type(old)
    if type(new) is not kind:
        return False
    if kind is dict:
        return len(old) == len(new) and all(key in new and _same(item, new[key]) for key, item in old.items())
    if kind is list or kind is tuple:
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, BaseModel):
        return _same(old.__dict__, new.__dict__) and _same(old.__pydantic_extra__, new.__pydantic_extra__)
    if _compares_by_identity(kind):
        # Its equality is identity, which no copy keeps; the attributes tell whether it was edited.
        return has_attributes(old) and _same_state(old, new)
    try:
        # SECURITY: being equal is the class's own word, which may look at an id alone.
        return bool(old == new) and _same_state(old, new)
    # A foreign object's own comparison runs here; not being able to tell means that it may have changed.
    except Exception:
        return False


def _same_state(old: Any, new: Any) -> bool:
    return _same(attributes_of(old), attributes_of(new)) and _same(elements_of(old), elements_of(new))


def _compares_by_identity(kind: type[Any]) -> bool:
    inherited: Any = object.__eq__
    return kind.__eq__ is inherited
