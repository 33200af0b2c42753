"""Grafting what a plugin gives back onto the original that it was copied from."""

from __future__ import annotations

import marshal
import operator
import struct
from enum import Enum
from typing import Any

from pydantic import BaseModel

from cpex.framework.models.contents import attributes_of, elements_of, has_attributes
from cpex.framework.models.copying import ATOMS, copy_now, copy_tree
from cpex.framework.models.lazy import set_bookkeeping_of

_set_fields_set, _set_extra, _set_private = set_bookkeeping_of
_is = operator.is_
_MISSING = object()


class _Plain:
    """A class whose instances have nothing but attributes."""


_PLAIN_SIZE, _POINTER_SIZE = _Plain.__basicsize__, struct.calcsize("P")

GraftMemo = dict[Any, Any]
"""Copies by the id of their source, as `copy_now` has them, and grafted containers by the ids of old and new."""


def graft(old: Any, new: Any) -> Any:
    """Take over a value that a plugin has had in its hands.

    Args:
        old: The pristine value, which no plugin has ever held.
        new: What the plugin gave back in its place.

    Returns:
        `old` itself when the two are the same in type and content (so that `1` and `True` differ, and the order of keys
        does not count), else a value of `new`'s content whose unchanged parts are `old`'s and whose other parts are
        private copies.
    """
    try:
        # The outermost container usually differs, or nobody would ask; those inside usually do not.
        if type(new) is dict and type(old) is dict:
            return _graft_dict(old, new, {})
        return _graft(old, new, {})
    except RecursionError:
        # Deeper than the stack, or cyclic: `copy_tree` handles both, at the price of sharing nothing with `old`.
        return copy_tree(new)


def _graft(old: Any, new: Any, memo: GraftMemo) -> Any:
    if new is old:
        return old
    kind = type(new)
    if kind is not type(old):
        return copy_now(new, memo)
    if kind in ATOMS:
        return old if new == old else new
    if kind is dict or kind is list:
        return old if _same_data(old, new) else _graft_inside(old, new, memo)
    if isinstance(new, BaseModel):
        return _graft_model(old, new, memo)
    return old if _same(old, new, memo) else copy_now(new, memo)


def _graft_inside(old: Any, new: Any, memo: GraftMemo) -> Any:
    """The same, of two values that are known to differ, or likely to."""
    kind = type(new)
    if kind is not type(old) or (kind is not dict and kind is not list):
        return _graft(old, new, memo)
    # Each pair once: structure that repeats itself on both sides has more paths through it than could be walked.
    pair = id(old), id(new)
    if pair not in memo:
        memo[pair] = _graft_dict(old, new, memo) if kind is dict else _graft_list(old, new, memo)
    return memo[pair]


def _same_data(old: Any, new: Any) -> bool:
    """Whether two containers of plain data are alike to the last type, told at C speed; False when it cannot tell."""
    try:
        # The interpreter's serialiser tells `1` from `True` and `1.0`, which a comparison does not. It writes what is
        # repeated as references, so it cannot be made to write without end; it then may only fail to tell.
        return len(old) == len(new) and marshal.dumps(old, 4) == marshal.dumps(new, 4)
    except ValueError:
        return False


def _graft_dict(old: dict[Any, Any], new: dict[Any, Any], memo: GraftMemo, *, fields: bool = False) -> dict[Any, Any]:
    # Of a model's fields that were touched one has usually changed, or nobody would ask; of the items inside, few have.
    changed = len(old) != len(new)
    # Most inner containers hold only atoms and are as they were handed out: that is told at C speed.
    if not changed and all(map(_is, old.values(), new.values())) and all(map(_is, old, new)):
        return old
    result = {}
    for key, item in new.items():
        before = old.get(key, _MISSING)
        if item is not before:
            kind = type(item)
            # What the call below would find, without the calls: most items are as they were handed out.
            if not fields and kind is type(before) and (kind is dict or kind is list) and _same_data(before, item):
                item = before
            else:
                item = _graft_inside(before, item, memo)
                changed = changed or item is not before
        result[key] = item
    return result if changed else old


def _graft_list(old: list[Any], new: list[Any], memo: GraftMemo) -> list[Any]:
    changed = len(old) != len(new)
    if not changed and all(map(_is, old, new)):
        return old
    result = []
    for before, item in zip(old, new, strict=False):
        if item is not before:
            item = _graft(before, item, memo)
            changed = changed or item is not before
        result.append(item)
    result.extend(copy_now(item, memo) for item in new[len(old) :])
    return result if changed else old


def _graft_model(old: BaseModel, new: BaseModel, memo: GraftMemo) -> BaseModel:
    fields, extra, private = (
        _graft_dict(before or {}, after or {}, memo, fields=True)
        for before, after in (
            (old.__dict__, new.__dict__),
            (old.__pydantic_extra__, new.__pydantic_extra__),
            (getattr(old, "__pydantic_private__", None), getattr(new, "__pydantic_private__", None)),
        )
    )
    if (
        not _differs(fields, old.__dict__)
        and not _differs(extra, old.__pydantic_extra__)
        and not _differs(private, getattr(old, "__pydantic_private__", None))
    ):
        return old
    result = old.model_copy()
    object.__setattr__(result, "__dict__", dict(fields))
    _set_extra(result, None if old.__pydantic_extra__ is None else dict(extra))
    _set_fields_set(result, set(new.__pydantic_fields_set__))
    _set_private(result, dict(private) if private else getattr(new, "__pydantic_private__", None))
    return result


def _differs(grafted: dict[Any, Any], before: dict[Any, Any] | None) -> bool:
    # Nothing and an empty dictionary are alike: a model without declared fields keeps all it has among the extras.
    return grafted is not before and bool(grafted or before)


def _same(old: Any, new: Any, memo: GraftMemo) -> bool:
    """Whether two values of one foreign type have the same content, as far as that can be told without side effects."""
    kind = type(new)
    try:
        if kind is tuple:
            return len(old) == len(new) and all(
                _graft(before, item, memo) is before for before, item in zip(old, new, strict=True)
            )
        if kind is frozenset or kind is set:
            # Of equal elements the types are compared as well; there is no order to compare them in pairs, so elements
            # that may hold more than they compare by cannot be told apart.
            kinds = sorted(map(repr, map(type, new)))
            return bool(old == new) and sorted(map(repr, map(type, old))) == kinds and all(map(_is_plain, new))
        # mypy takes the two for functions of different types; they are the same slot, looked up on the class.
        if getattr(kind, "__eq__") is object.__eq__:  # noqa: B009
            return has_attributes(new) and _same_state(old, new, memo) and _same_hidden(old, new, memo)
        # SECURITY: being equal is the class's own word, which may look at an id alone: what a plugin has masked in the
        # rest would be taken for unchanged, and be handed on as it was.
        return bool(old == new) and _same_state(old, new, memo)
    # A foreign object's own comparison runs here; not being able to tell means that it may have changed.
    except Exception:
        return False


def _is_plain(value: Any) -> bool:
    kind = type(value)
    return kind in ATOMS or isinstance(value, Enum) or (kind in (tuple, frozenset) and all(map(_is_plain, value)))


def _same_state(old: Any, new: Any, memo: GraftMemo) -> bool:
    """Whether two objects of one class hold the same: attributes and elements, but for what compiled classes hide."""
    attributes, elements = attributes_of(old), elements_of(old)
    if _graft_dict(attributes, attributes_of(new), memo) is not attributes:
        return False
    others: Any = elements_of(new)
    if isinstance(elements, dict):
        return _graft_dict(elements, others, memo) is elements
    return elements is None or _graft_list(elements, others, memo) is elements


def _same_hidden(old: Any, new: Any, memo: GraftMemo) -> bool:
    """Whether what no attribute shows is the same; of exceptions it is compared, of others nobody can tell."""
    if isinstance(new, BaseException):
        return _graft(old.args, new.args, memo) is old.args and str(old) == str(new)
    # Functions and partials are larger than their attributes.
    slots = len(attributes_of(new)) - len(getattr(new, "__dict__", ()))
    return type(new).__basicsize__ <= _PLAIN_SIZE + _POINTER_SIZE * slots
