"""Private copies of values, and grafting a changed copy back onto the original.

Two functions carry the isolation of the pipeline:

- `copy_tree(value)` makes what a plugin is handed: plain containers, copied at every depth, equal to the original.
- `graft(old, new)` takes what a plugin gives back: `old` itself when nothing differs, otherwise a value that shares the
  unchanged parts with `old` and whose changed parts are copies. The plugin keeps no way into the result.

Immutable values are shared. What cannot be copied (streams, clients, locks, modules, callables) is shared as well, with
one WARNING per type and process.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import logging
import marshal
import operator
import pathlib
import re
import types
import uuid
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, SecretBytes, SecretStr

from cpex.framework.models.lazy import set_bookkeeping_of

logger = logging.getLogger("cpex.framework.memory")

T = TypeVar("T")

ATOMS: frozenset[type] = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        range,
        type(...),
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        re.Pattern,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
        pathlib.PosixPath,
        SecretStr,
        SecretBytes,
    }
)
"""Exact types whose instances nobody can change; they are shared between host and plugins."""

_SHARED_QUIETLY = (enum.Enum, BaseException, *weakref.ProxyTypes, weakref.ReferenceType, type)
_all_atoms = ATOMS.issuperset
_set_fields_set, _set_extra, _set_private = set_bookkeeping_of
_is = operator.is_
_MISSING = object()
_warned: set[type] = set()

Memo = dict[int, Any]
GraftMemo = dict[Any, Any]
"""Copies by the id of their source, as `Memo` has them, and grafted containers by the ids of old and new."""
Todo = list[tuple[Any, Any]]


def copy_tree(value: T) -> T:
    """Copy a value at every depth; shared references and cycles inside it stay shared references and cycles."""
    if type(value) in ATOMS:
        return value
    memo: Memo = {}
    todo: Todo = []
    result: T = _begin(value, memo, todo)
    _finish(memo, todo)
    return result


def _finish(memo: Memo, todo: Todo) -> None:
    # A work list instead of recursion: nesting depth comes from outside and must not exhaust the stack.
    while todo:
        source, target = todo.pop()
        # `target` starts as a shallow copy, so only what is not an atom is left to do.
        for key, item in source.items() if type(source) is dict else enumerate(source):
            kind = type(item)
            if kind in ATOMS:
                continue
            if kind is dict and id(item) not in memo:
                # What `_begin` does, without the call: most of what is copied is dictionaries in lists.
                target[key] = memo[id(item)] = copied = item.copy()
                if not _all_atoms(map(type, item.values())):
                    todo.append((item, copied))
            else:
                target[key] = _begin(item, memo, todo)


def _begin(value: Any, memo: Memo, todo: Todo) -> Any:
    """Start the copy of one value: its shell now, the containers inside when the work list gets there."""
    done = memo.get(id(value), _MISSING)
    if done is not _MISSING:
        return done
    kind = type(value)
    if kind is dict:
        target: Any = value.copy()
        leaves = _all_atoms(map(type, value.values()))
    elif kind is list:
        target = value.copy()
        leaves = _all_atoms(map(type, value))
    elif (copier := _COPIERS.get(kind)) is not None:
        return copier(value, memo)
    elif isinstance(value, BaseModel):
        return _begin_model(value, memo, todo)
    else:
        return _copy_other(value, memo)
    memo[id(value)] = target
    if not leaves:
        todo.append((value, target))
    return target


def _copy_now(value: Any, memo: Memo) -> Any:
    """Copy a value whose contents must be complete at once, because an immutable shell is built around it."""
    if type(value) in ATOMS:
        return value
    todo: Todo = []
    result = _begin(value, memo, todo)
    _finish(memo, todo)
    return result


def _copy_tuple(value: tuple[Any, ...], memo: Memo) -> Any:
    if _all_atoms(map(type, value)):
        return value
    items = [_copy_now(item, memo) for item in value]
    # A cycle through the tuple may have copied it meanwhile.
    if (done := memo.get(id(value), _MISSING)) is not _MISSING:
        return done
    result = memo[id(value)] = value if all(map(_is, items, value)) else tuple(items)
    return result


def _copy_set(value: set[Any] | frozenset[Any], memo: Memo) -> Any:
    if _all_atoms(map(type, value)):
        result: Any = value if type(value) is frozenset else value.copy()
    else:
        result = type(value)([_copy_now(item, memo) for item in value])
    memo[id(value)] = result
    return result


def _copy_bytearray(value: bytearray, memo: Memo) -> Any:
    result = memo[id(value)] = value.copy()
    return result


_COPIERS: dict[type, Callable[[Any, Memo], Any]] = {
    tuple: _copy_tuple,
    set: _copy_set,
    frozenset: _copy_set,
    bytearray: _copy_bytearray,
}


def _copy_other(value: Any, memo: Memo) -> Any:
    if isinstance(value, _SHARED_QUIETLY):
        return value
    if callable(value):
        return _share(value, "it is callable")
    return _copy_foreign(value, memo)


class _Scratch(dict[int, Any]):
    """What one attempt at copying has copied so far; a failed attempt leaves half-made copies behind."""

    def __init__(self, memo: Memo) -> None:
        super().__init__()
        self._memo = memo

    def get(self, key: int, default: Any = None) -> Any:
        """What this attempt, or the copying around it, has made of an object."""
        return super().get(key, self._memo.get(key, default))


def _copy_foreign(value: Any, memo: Memo) -> Any:
    """Copy by the object's own code."""
    scratch = _Scratch(memo)
    try:
        result = copy.deepcopy(value, scratch)
    # A foreign object's own copying code runs here and may raise anything.
    except Exception as error:
        try:
            shell = _copy_around(value, memo)
        except Exception:
            shell = _MISSING
        return _share(value, f"{type(error).__name__}: {error}") if shell is _MISSING else shell
    # `deepcopy` keeps the temporary objects that it has met alive under its memo's own id, so that no other object can
    # appear in their place and be taken for one of them.
    alive = scratch.pop(id(scratch), ())
    memo.update(scratch)
    memo.setdefault(id(memo), []).extend(alive)
    return result


def _copy_around(value: Any, memo: Memo) -> Any:
    """A container of its own around contents of which some cannot be copied; `_MISSING` for what is no container."""
    if isinstance(value, tuple):
        result = memo[id(value)] = tuple.__new__(type(value), [_copy_now(item, memo) for item in value])
        return result
    put: Callable[[Any, Any, Any], None]
    if isinstance(value, dict):
        # Past the methods of the subclass, which may do more than hold values.
        contents, put = list(dict.items(value)), dict.__setitem__
    elif isinstance(value, list):
        contents, put = list(enumerate(value)), list.__setitem__
    elif isinstance(value, collections.deque):
        contents, put = list(enumerate(value)), collections.deque.__setitem__
    elif dataclasses.is_dataclass(value) or isinstance(value, types.SimpleNamespace):
        # Declared to be data. Other objects (clients, sessions) may stand for something that must not be doubled.
        contents, put = list(vars(value).items()), object.__setattr__
    else:
        return _MISSING
    shell = memo[id(value)] = copy.copy(value)
    for key, item in contents:
        put(shell, key, _copy_now(item, memo))
    return shell


def _begin_model(value: BaseModel, memo: Memo, todo: Todo) -> BaseModel:
    cls = type(value)
    if "__deepcopy__" in cls.__dict__ or "__copy__" in cls.__dict__:
        copied: BaseModel = _copy_foreign(value, memo)
        return copied

    def begun(source: dict[str, Any] | None) -> dict[str, Any] | None:
        if not source:
            return source if source is None else {}
        # Shallow now; what is inside comes when the work list gets there.
        target = dict(source)
        todo.append((source, target))
        return target

    result = memo[id(value)] = cls.__new__(cls)
    # Pydantic's own bookkeeping, as its `__deepcopy__` treats it; fields are copied by our rules instead of deepcopy's.
    object.__setattr__(result, "__dict__", begun(value.__dict__))
    _set_extra(result, begun(value.__pydantic_extra__))
    _set_fields_set(result, set(value.__pydantic_fields_set__))
    _set_private(result, begun(getattr(value, "__pydantic_private__", None)))
    return result


def _share(value: T, reason: str) -> T:
    kind = type(value)
    if kind not in _warned:
        _warned.add(kind)
        logger.warning(
            "Cannot deep-copy a value of type %s.%s (%s); sharing reference between host and plugins",
            kind.__module__,
            kind.__qualname__,
            reason,
        )
    return value


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
        return _copy_now(new, memo)
    if kind in ATOMS:
        return old if new == old else new
    if kind is dict or kind is list:
        return old if _same_data(old, new) else _graft_inside(old, new, memo)
    if isinstance(new, BaseModel):
        return _graft_model(old, new, memo)
    return old if _same(old, new, memo) else _copy_now(new, memo)


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
    result.extend(_copy_now(item, memo) for item in new[len(old) :])
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
            # Of equal elements the types are compared as well; there is no order to compare them in pairs.
            return bool(old == new) and sorted(map(repr, map(type, old))) == sorted(map(repr, map(type, new)))
        # mypy takes the two for functions of different types; they are the same slot, looked up on the class.
        if getattr(kind, "__eq__") is object.__eq__:  # noqa: B009
            return hasattr(new, "__dict__") and _graft_dict(vars(old), vars(new), memo) is vars(old)
        return bool(old == new)
    # A foreign object's own comparison runs here; not being able to tell means that it may have changed.
    except Exception:
        return False
