"""Private copies of values: plain containers, copied at every depth, equal to the original.

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


def copy_now(value: Any, memo: Memo) -> Any:
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
    items = [copy_now(item, memo) for item in value]
    # A cycle through the tuple may have copied it meanwhile.
    if (done := memo.get(id(value), _MISSING)) is not _MISSING:
        return done
    result = memo[id(value)] = value if all(map(_is, items, value)) else tuple(items)
    return result


def _copy_set(value: set[Any] | frozenset[Any], memo: Memo) -> Any:
    if _all_atoms(map(type, value)):
        result: Any = value if type(value) is frozenset else value.copy()
    else:
        result = type(value)([copy_now(item, memo) for item in value])
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
        # As above.
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
        result = memo[id(value)] = tuple.__new__(type(value), [copy_now(item, memo) for item in value])
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
        put(shell, key, copy_now(item, memo))
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
