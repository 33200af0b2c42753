"""Models whose fields may be filled on first touch.

The engine hands every plugin an object of its own, and most plugins look at a part of it. `LazyModel` lets the engine
create such an object in constant time: a *pending* instance holds, beside the fields that are already there, a `Filler`
that knows how to make the rest. Reading one missing field makes that field; anything that looks at the model as a whole
(`__dict__`, a dump, a copy, a comparison, a pickle) completes it first. A completed instance is an ordinary model: same
class, plain values, nothing left behind.

How: the filler sits in the instance dictionary under a key that no attribute can have. `__getattr__` is only asked for
what is missing. Whole-model readers, pydantic's compiled ones included, look `__dict__` up as an attribute, so a
property of that name sees them all.

This module decides when a field is filled; what it is filled with is the filler's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pydantic import BaseModel

PENDING = "\0pending"
"""Key of the filler in the instance dictionary. Not an identifier, so no field or attribute can collide with it."""

_DICT = BaseModel.__dict__["__dict__"]
raw_dict = _DICT.__get__
"""`raw_dict(model)`: the instance dictionary as it stands, without completing the model. For the engine."""
set_raw_dict = _DICT.__set__
"""`set_raw_dict(model, values)`: replace the instance dictionary. For the engine."""

_FIELDS_SET = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_EXTRA = BaseModel.__dict__["__pydantic_extra__"].__set__
_PRIVATE = BaseModel.__dict__["__pydantic_private__"].__set__
set_bookkeeping_of = (_FIELDS_SET, _EXTRA, _PRIVATE)
"""Set pydantic's own bookkeeping: fields set, extra values, private attributes, each as `setter(model, value)`. They
reach the slots of root models too, whose class attributes of the same names send `setattr` elsewhere."""
_SLOTS = frozenset({"__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})


class Filler(Protocol):
    """Makes the missing parts of one pending model. It knows nothing of when it is asked.

    One that fills fields with copies may also have `peek() -> {field: value}`: what missing fields would be copied
    from, for those who only read. A field that it leaves out holds the default of its class.
    """

    def fields(self) -> tuple[str, ...]:
        """Names of all fields that this filler can make, in the order of declaration."""

    def fill(self, name: str) -> Any:
        """The value of one field. Called at most once per field of an instance."""

    def state(self) -> tuple[set[str], dict[str, Any] | None, dict[str, Any] | None]:
        """Pydantic's own bookkeeping for the completed model: fields set, extra values, private attributes."""


def complete(model: BaseModel) -> None:
    """Fill every missing field of a pending model. Does nothing to a model that is already complete."""
    values = raw_dict(model)
    filler: Filler | None = values.get(PENDING)
    if filler is None:
        return
    filled = {name: values[name] if name in values else filler.fill(name) for name in filler.fields()}
    fields_set, extra, private = filler.state()
    _FIELDS_SET(model, fields_set)
    _EXTRA(model, extra)
    _PRIVATE(model, private)
    # INVARIANT: the instance dictionary keeps its identity, for whoever already holds it.
    values.clear()
    values.update(filled)


def is_untouched(model: BaseModel) -> bool:
    """Whether nobody has looked at any field of a model that was handed out with all of them missing."""
    values = raw_dict(model)
    return len(values) == 1 and PENDING in values


def contents(model: BaseModel) -> dict[str, Any]:
    """`{field: value}` of a model, for reading only: nothing is filled or copied, so values may belong to others.

    Fields of a pending model that nobody has set may be left out; they hold the default of its class.
    """
    values: dict[str, Any] = raw_dict(model)
    filler: Filler | None = values.get(PENDING)
    if filler is None:
        return values
    peek: Callable[[], dict[str, Any]] | None = getattr(filler, "peek", None)
    if peek is None:
        complete(model)
        return values
    found = {**peek(), **values}
    del found[PENDING]
    return found


def build(cls: type[BaseModel], values: dict[str, Any], fields_set: set[str] | None = None) -> Any:
    """Create a complete instance from values that are known to be valid, without validating them again."""
    model = object.__new__(cls)
    set_raw_dict(model, values)
    _FIELDS_SET(model, set(values) if fields_set is None else fields_set)
    _EXTRA(model, None)
    _PRIVATE(model, None)
    return model


def _get_dict(model: BaseModel) -> dict[str, Any]:
    values: dict[str, Any] = raw_dict(model)
    if PENDING in values:
        complete(model)
    return values


_CONTAINERS = (dict, list, set)


class Defaults:
    """Fills an instance that was made of given values, known to be valid, with the defaults of its class."""

    __slots__ = ("_fields", "_given")

    def __init__(self, cls: type[BaseModel], given: Iterable[str]) -> None:
        # The class itself: its fields are complete only after this is made.
        self._fields = cls
        self._given = frozenset(given)

    def fields(self) -> tuple[str, ...]:
        return tuple(self._fields.model_fields)

    def fill(self, name: str) -> Any:
        field = self._fields.model_fields[name]
        # Pydantic looks at the signature of a factory each time, which takes longer than all the rest of a small call.
        if field.default_factory in _CONTAINERS:
            return field.default_factory()
        return field.get_default(call_default_factory=True)

    def peek(self) -> dict[str, Any]:
        return {}

    def state(self) -> tuple[set[str], None, None]:
        return set(self._given), None, None


def may_be_pending(kind: type[Any]) -> bool:
    """Whether instances of a class fill what is missing when it is asked for.

    SECURITY: a class with its own way of answering, or with something of its own under a field's name, would answer for
    fields that are not there yet, and a guard would judge that in their place.
    """
    return (
        issubclass(kind, LazyModel)
        and kind.__getattr__ is LazyModel.__getattr__
        and kind.__getattribute__ is object.__getattribute__
        and not any(hasattr(kind, name) for name in kind.model_fields)
    )


class LazyModel(BaseModel):
    """Base of the models that the engine may hand out before all their fields are made."""

    # The getter sees every reader of the whole model; the setter is pydantic's own, so construction stays compiled.
    # mypy: overriding the interpreter's own `__dict__` descriptor is the point of this class.
    __dict__ = property(_get_dict, set_raw_dict)

    def __getattr__(self, name: str) -> Any:
        values = raw_dict(self)
        filler: Filler | None = values.get(PENDING)
        if filler is None:
            # mypy does not see this method of pydantic's, which is hidden from type checkers.
            return super().__getattr__(name)  # type: ignore[misc]
        if name in filler.fields():
            # Of threads that read at the same time, all get the value that came first.
            return values.setdefault(name, filler.fill(name))
        if name in _SLOTS or filler.state()[1] or filler.state()[2]:
            complete(self)
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
