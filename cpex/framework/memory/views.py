"""What a plugin is handed instead of the host's objects, and what of it comes back.

A view is an object of the same class as the original. Scalar fields are there from the start; a container field is
copied when it is first touched (`models/lazy.py`), at the price of what was touched. A view that nobody touched and
nobody kept is as good as new, and is handed to the next plugin.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from pydantic import BaseModel

from cpex.framework.memory.grafting import graft
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.copying import ATOMS, copy_tree
from cpex.framework.models.lazy import (
    PENDING,
    Defaults,
    LazyModel,
    complete,
    may_be_pending,
    raw_dict,
    set_raw_dict,
)

_new = object.__new__
_EXACT = frozenset({str, bytes, type(None)})
"""Types of which equal values are alike."""
# Whether a plugin kept its view is told by counting references where they are exact; elsewhere it counts as kept.
_COUNTED = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
getrefcount = getattr(sys, "getrefcount", lambda _: 0)


# What an object that nobody else holds counts is measured, because interpreters differ: from 3.14 on, reading a local
# variable and passing it on adds nothing.
# SECURITY: each of these must measure the least that such an object ever counts. A number that is too high would take a
# view that somebody holds for a free one; one that is too low only costs time.


def _count_of_local() -> int:
    value = object()
    return int(getrefcount(value))


def _count_of_own_dictionary() -> int:
    values: dict[str, Any] = {}
    owner = [values]
    count = int(getrefcount(values))
    owner.clear()
    return count


def _count_of_argument() -> int:
    value = object()
    return _count_of_passed(value)


def _count_of_passed(value: object) -> int:
    return int(getrefcount(value))


SOLE_REFERENCE = _count_of_local() if _COUNTED else -1
"""`getrefcount` of an object that nothing but one local variable refers to."""
OWN_DICTIONARY = _count_of_own_dictionary() if _COUNTED else -1
"""The same of an instance dictionary that its instance and one local variable refer to."""
_SOLE_ARGUMENT = _count_of_argument() if _COUNTED else -1
"""The same for an argument, which the caller's variable refers to as well."""


class _PayloadFiller(tuple[LazyModel, dict[str, Any]]):
    """Fills the container fields of any number of views of one payload, each with copies of its own.

    `(payload, its instance dictionary)`: one is made in every hook call, and a tuple is made fastest.
    """

    __slots__ = ()

    def fields(self) -> tuple[str, ...]:
        return tuple(self[1])

    def fill(self, name: str) -> Any:
        return copy_tree(self[1][name])

    def peek(self) -> dict[str, Any]:
        return self[1]

    def state(self) -> tuple[set[str], dict[str, Any] | None, dict[str, Any] | None]:
        payload = self[0]
        extra, private = payload.__pydantic_extra__, payload.__pydantic_private__
        return (
            set(payload.__pydantic_fields_set__),
            None if extra is None else copy_tree(extra),
            None if private is None else copy_tree(private),
        )


def base_of(payload: Any) -> dict[str, Any] | None:
    """The instance dictionary of an untouched view, to be copied for each; `None` when views are private copies.

    It holds the filler, and the fields whose equal values are alike, so that comparing with it tells whether a view was
    touched. (`1` over `True` would compare equal, so numbers are filled when they are read, like containers.)
    """
    kind = type(payload)
    lazy = _is_lazy.get(kind)
    if lazy is None:
        # `isinstance` asks pydantic's metaclass; once per class is enough. Classes made on the fly must not pile up.
        if len(_is_lazy) >= _MAX_CLASSES:
            _is_lazy.clear()
        lazy = _is_lazy[kind] = may_be_pending(kind)
    if not lazy:
        return None
    values = raw_dict(payload)
    if PENDING in values:
        # INVARIANT: the chain's payload is complete.
        complete(payload)
    base = {PENDING: _PayloadFiller((payload, values))}
    # A loop, not a comprehension: this runs in every hook call, and a comprehension is a function call more.
    for name, value in values.items():
        if type(value) in _EXACT:
            base[name] = value
    return base


_MAX_CLASSES = 1024
_is_lazy: dict[type, bool] = {}


class Views:
    """Makes views of one payload, each another object. Lives as long as that payload is the chain's current one."""

    __slots__ = ("_base", "_payload")

    def __init__(self, payload: Any) -> None:
        self._payload = payload
        self._base = base_of(payload)

    def view(self) -> Any:
        """A fresh view."""
        if self._base is None:
            return copy_tree(self._payload)
        view = _new(type(self._payload))
        set_raw_dict(view, self._base.copy())
        return view


def wrap_payload_for_isolation(payload: Any) -> Any:
    """An object equal to `payload` and of its class, whose containers are copies made when they are first touched.

    Editing it in place, at any depth and through whatever library, never reaches `payload`. A frozen model that holds
    nothing which could be edited is returned itself.
    """
    if _has_nothing_to_edit(payload):
        return payload
    return Views(payload).view()


def _has_nothing_to_edit(payload: Any) -> bool:
    if not (isinstance(payload, BaseModel) and payload.model_config.get("frozen")):
        return False
    return (
        not payload.__pydantic_private__
        and not payload.__pydantic_extra__
        and all(type(value) in ATOMS for value in raw_dict(payload).values())
    )


def settle(view: Any) -> None:
    """Make a view independent of its original where somebody may still look at it after the call.

    A view that only the caller's local variable refers to is left as it is: what nobody has touched costs nothing.
    """
    if getrefcount(view) != _SOLE_ARGUMENT and isinstance(view, LazyModel):
        complete(view)


class ContextSource:
    """Makes plugin contexts for one hook call, from the host's `GlobalContext`."""

    __slots__ = ("_context",)
    _FIELDS = ("global_context", "state", "metadata")

    def __init__(self, context: GlobalContext) -> None:
        self._context = context

    def fresh(self) -> PluginContext:
        """The context of a plugin that has none from an earlier hook of the request."""
        context: PluginContext = _new(PluginContext)
        set_raw_dict(context, {PENDING: self})
        return context

    def continued(self, context: PluginContext | None) -> PluginContext:
        """A context of its own that goes on from another one, whose state it copies now."""
        result = self.fresh()
        if context is not None:
            # Only what is there: a context that nobody has touched has no state yet.
            values = raw_dict(context)
            raw_dict(result).update({name: copy_tree(values[name]) for name in ("state", "metadata") if name in values})
        return result

    def held(self, context: PluginContext | None, holder: object) -> PluginContext:
        """A plugin's context for one turn: a fresh one, or one from an earlier hook pointed at this global context.

        That is the very object from the earlier hook, unless its last holder is still there: then it is in use, and the
        turn gets an object of its own around the same state.

        Args:
            holder: The hook call, which lives as long as its turns; is only referred to weakly.
        """
        if context is None:
            context = self.fresh()
        elif (last := getattr(context, "_cpex_holder", None)) is not None and last() is not None:
            state, metadata = context.state, context.metadata
            context = self.fresh()
            raw_dict(context).update(state=state, metadata=metadata)
        else:
            values = raw_dict(context)
            values.pop("global_context", None)
            values[PENDING] = self
        _set_holder(context, weakref.ref(holder))
        return context

    def fields(self) -> tuple[str, ...]:
        return self._FIELDS

    def fill(self, name: str) -> Any:
        return view_global_context(self._context) if name == "global_context" else {}

    def peek(self) -> dict[str, Any]:
        return {"global_context": self._context}

    def state(self) -> tuple[set[str], None, None]:
        return {"global_context"}, None, None


_set_holder = PluginContext.__dict__["_cpex_holder"].__set__
_set_baseline = GlobalContext.__dict__["_cpex_baseline"].__set__
_SHARED_STATE = ("state", "metadata")


class _GlobalContextFiller:
    __slots__ = ("_values", "baseline", "original")

    def __init__(self, original: GlobalContext) -> None:
        self.original = original
        self._values: dict[str, Any] = original.__dict__
        self.baseline: dict[str, dict[str, Any]] = {}

    def fields(self) -> tuple[str, ...]:
        return tuple(self._values)

    def fill(self, name: str) -> Any:
        value = self._values[name]
        if name in _SHARED_STATE:
            # What the plugin starts from: the host or another task may change the original before this call ends, also
            # inside of what it holds, and must not find that taken back.
            self.baseline[name] = copy_tree(value)
        return copy_tree(value)

    def peek(self) -> dict[str, Any]:
        return self._values

    def state(self) -> tuple[set[str], None, None]:
        return set(self.original.__pydantic_fields_set__), None, None


def view_global_context(original: GlobalContext) -> GlobalContext:
    """A plugin's copy of the global context; remembers what shared state it started from."""
    filler = _GlobalContextFiller(original)
    view: GlobalContext = _new(type(original))
    values = {name: value for name, value in original.__dict__.items() if type(value) in ATOMS}
    values[PENDING] = filler
    set_raw_dict(view, values)
    _set_baseline(view, filler.baseline)
    if type(original) is not GlobalContext and not may_be_pending(type(original)):
        complete(view)
    return view


def snapshot_global_context(original: GlobalContext) -> GlobalContext:
    """A private copy of the global context, made now."""
    values = raw_dict(original)
    if isinstance(values.get(PENDING), Defaults):
        # Not much there yet, and the rest is nobody's.
        filler = values[PENDING]
        result: GlobalContext = _new(type(original))
        own = {name: copy_tree(value) for name, value in values.items() if name != PENDING}
        set_raw_dict(result, {**own, PENDING: filler})
        return result
    result = view_global_context(original)
    complete(result)
    return result


class StateChanges:
    """Keys of one shared dictionary that a plugin wrote or deleted."""

    __slots__ = ("deleted", "name", "written")

    def __init__(self, name: str, baseline: dict[str, Any], now: dict[str, Any], *, partial: bool) -> None:
        self.name = name
        self.written: dict[str, Any] = {}
        for key, value in now.items():
            if key in baseline:
                before = baseline[key]
                value = graft(before, value)
                if value is before:
                    continue
            else:
                value = copy_tree(value)
            self.written[key] = value
        self.deleted = [] if partial else [key for key in baseline if key not in now]

    def apply(self, context: GlobalContext) -> None:
        """Carry the changes into the host's object."""
        target = getattr(context, self.name)
        target.update(self.written)
        for key in self.deleted:
            target.pop(key, None)


def state_changes(context: PluginContext, host: GlobalContext) -> list[StateChanges]:
    """What a plugin did to the shared state; a nested edit is a write of its top-level key."""
    view = raw_dict(context).get("global_context")
    # A plugin may have put anything in its place.
    if not isinstance(view, GlobalContext):
        return []
    baseline = getattr(view, "_cpex_baseline", None)
    values = raw_dict(view)
    changes = []
    for name in _SHARED_STATE:
        now = values.get(name)
        if not isinstance(now, dict):
            continue
        # A global context that the plugin built itself says nothing about keys that it leaves out.
        start = baseline.get(name) if baseline is not None else None
        change = StateChanges(name, getattr(host, name) if start is None else start, now, partial=start is None)
        if change.written or change.deleted:
            changes.append(change)
    return changes


def snapshot_context(context: PluginContext | None, host: GlobalContext) -> PluginContext:
    """A context of its own for a background plugin: its state continued, everything copied now."""
    result = ContextSource(host).continued(context)
    complete(result)
    complete(result.global_context)
    return result


def snapshot(payload: Any) -> Any:
    """A private copy of a whole payload, made now."""
    return copy_tree(payload)
