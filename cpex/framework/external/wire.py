"""What crosses to another process, as JSON.

Two forms. The *plain* form is the one of release 0.1: dumps of payload, context and result, in which JSON (or the
transport) flattens what it has no word for: sets become lists, dates texts, secrets asterisks. A *frame* is used
between two ends that both know it: values arrive as what they were, and extensions, the whole context, the deadline and
a correlation id travel along. Which form is used is decided once per connection, from what the server says of itself.

In a frame, a value that JSON cannot tell is an object whose key `$cpex` names its type, beside `v`:
`{"$cpex": "set", "v": [1, 2]}`. A dictionary that has such a key itself, or keys that are no texts, is sent as a list
of pairs, so decoding undoes encoding for every value that can be sent at all.

This module knows values, not connections; it opens and waits for nothing.

Source: docs/reference/external.md, "Frames".
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import from_json, to_json

from cpex.framework.external.shapes import hidden_fields, seen_models
from cpex.framework.models.lazy import contents

__all__ = ["FEATURES", "MASK", "TAG", "WireError", "dumps", "encode", "loads", "plain"]

JsonValue: TypeAlias = Any
"""What `json` reads and writes: `None`, bool, int, float, str, list, dict with texts for keys."""

TAG = "$cpex"
"""Key of an object that stands for a value JSON has no word for."""
MASK = "**********"
"""What stands for a secret that may not cross; the same text as pydantic's own."""
_MASKED = MASK.encode()
_TAG = TAG.encode()
_ESCAPE = b"\\u"
FEATURES = ("frames", "extensions", "cancel")
"""What an end of ours says about itself under `cpex_wire` in its answer about a plugin."""
ADVERTISEMENT = "cpex_wire"
"""Key, beside the fields of a plugin's configuration, that ends of release 0.1 ignore."""


class WireError(ValueError):
    """A value cannot cross to another process, or what came from there is not of the agreed form."""


# Out.

# For what pydantic's writer, which is faster, refuses: halves of surrogate pairs, and what is nested very deep. Made
# once: `json.dumps` with these options makes an encoder for every value.
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def dumps(value: Any, *, reveal: bool = False) -> bytes:
    """A value as the bytes of a frame: `encode`, then compact JSON in UTF-8.

    Raises:
        WireError: Something in it cannot cross; the text names its place and type, never its content.
    """
    data = _written(_encoded(value, _Encoder(reveal, _NUMBERS_TOO)))
    if b"NaN" in data or b"Infinity" in data:
        # Numbers that JSON has no word for, unless a text speaks of them.
        return _written(encode(value, reveal=reveal))
    return data


def text(value: str) -> bytes:
    """A text as it stands in a frame."""
    return _written(value)


def _written(words: JsonValue) -> bytes:
    try:
        return to_json(words)
    except ValueError:
        return _write(words).encode("utf-8", "surrogatepass")


def encode(value: Any, *, reveal: bool = False) -> JsonValue:
    """A value in the words of JSON, types kept.

    Args:
        value: Texts, numbers, containers, dates, pydantic models, dataclasses, at any depth. It is read, not copied:
            parts that need no other words are part of what is returned.
        reveal: Whether secrets cross as they are; else they arrive as secrets that hold asterisks.

    Raises:
        WireError: Something in it cannot cross; the text names its place and type, never its content.
    """
    return _encoded(value, _Encoder(reveal, _ATOMS))


def _encoded(value: Any, encoder: _Encoder) -> JsonValue:
    try:
        return encoder.encode(value)
    except RecursionError:
        raise WireError("a value is nested too deep, or contains itself, and cannot cross to another process") from None
    except _CannotCross as error:
        raise WireError(error.text()) from None


class _CannotCross(Exception):
    """Carries the place of what cannot cross outwards, one container at a time."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind
        self.path: list[str] = []

    def text(self) -> str:
        place = "".join(reversed(self.path)).lstrip(".") or "the value"
        kind = f"{self.kind.__module__}.{self.kind.__qualname__}"
        return f"{place} holds a `{kind}`, which cannot cross to another process; send plain data in its place"


_ATOMS = frozenset({type(None), bool, int, str})
_NUMBERS_TOO = _ATOMS | {float}
"""What crosses as it is where numbers that are not finite are found afterwards."""
_TEXT = frozenset({str})


class _Encoder:
    # Its loops are written out, and types compared by the set: most values are atoms, and a call for each would double
    # the price.

    __slots__ = ("_atoms", "_reveal")

    def __init__(self, reveal: bool, atoms: frozenset[type]) -> None:
        self._reveal = reveal
        self._atoms = atoms

    def encode(self, value: Any) -> JsonValue:
        kind = type(value)
        if kind in self._atoms:
            return value
        if kind is dict:
            return self._mapping(value)
        if kind is list:
            return self._items(value)
        if kind is float:
            return value if math.isfinite(value) else _tagged("float", repr(value))
        if kind in seen_models:
            return self._model(value, seen_models[kind])
        known = _WRITERS.get(kind)
        return known(self, value) if known is not None else self._derived(value)

    def _mapping(self, value: Mapping[Any, Any]) -> JsonValue:
        if not _TEXT.issuperset(map(type, value)) or TAG in value:
            return _tagged("map", [[self.encode(key), self._at(f".{key}", item)] for key, item in value.items()])
        if type(value) is dict and self._atoms.issuperset(map(type, value.values())):
            return value
        return self._fields(value)

    def _fields(self, value: Mapping[str, Any]) -> dict[str, JsonValue]:
        result = {}
        try:
            for key, item in value.items():
                result[key] = item if type(item) in self._atoms else self.encode(item)
        except _CannotCross as error:
            error.path.append(f".{key}")
            raise
        return result

    def _items(self, value: Any) -> list[JsonValue]:
        if type(value) is list and self._atoms.issuperset(map(type, value)):
            return value
        result: list[JsonValue] = []
        try:
            for item in value:
                result.append(item if type(item) in self._atoms else self.encode(item))
        except _CannotCross as error:
            error.path.append(f"[{len(result)}]")
            raise
        return result

    def _at(self, step: str, item: Any) -> JsonValue:
        try:
            return self.encode(item)
        except _CannotCross as error:
            error.path.append(step)
            raise

    def _model(self, value: BaseModel, hidden: frozenset[str] | None) -> JsonValue:
        """The fields of a model. Null fields are left out, as in the plain form: their absence says the same."""
        if hidden is None:
            return self.encode(value.model_dump(exclude_none=True, warnings=False, serialize_as_any=True))
        result = {}
        try:
            for name, item in contents(value).items():
                if type(item) in self._atoms:
                    if item is not None and name not in hidden:
                        result[name] = item
                elif name not in hidden:
                    result[name] = self.encode(item)
        except _CannotCross as error:
            error.path.append(f".{name}")
            raise
        return result

    def _secret(self, value: SecretStr | SecretBytes) -> JsonValue:
        content = value.get_secret_value() if self._reveal else MASK
        if isinstance(value, SecretBytes):
            return _tagged("secret_bytes", _base64(content if isinstance(content, bytes) else content.encode()))
        return _tagged("secret", content)

    def _derived(self, value: Any) -> JsonValue:
        """A value whose class is only derived from one that has a word."""
        if isinstance(value, BaseModel):
            return self._model(value, hidden_fields(type(value)))
        if isinstance(value, Enum):
            return self.encode(value.value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._mapping({each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
        for base, write in _BASES:
            if isinstance(value, base):
                return write(self, value)
        raise _CannotCross(type(value))


def _tagged(kind: str, value: JsonValue) -> dict[str, JsonValue]:
    return {TAG: kind, "v": value}


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


Writer: TypeAlias = Callable[[_Encoder, Any], JsonValue]
_WRITERS: dict[type, Writer] = {
    tuple: lambda encoder, value: _tagged("tuple", encoder._items(value)),
    set: lambda encoder, value: _tagged("set", encoder._items(value)),
    frozenset: lambda encoder, value: _tagged("frozenset", encoder._items(value)),
    bytes: lambda _, value: _tagged("bytes", _base64(value)),
    bytearray: lambda _, value: _tagged("bytearray", _base64(value)),
    datetime: lambda _, value: _tagged("datetime", value.isoformat()),
    date: lambda _, value: _tagged("date", value.isoformat()),
    time: lambda _, value: _tagged("time", value.isoformat()),
    timedelta: lambda _, value: _tagged("timedelta", [value.days, value.seconds, value.microseconds]),
    Decimal: lambda _, value: _tagged("decimal", str(value)),
    UUID: lambda _, value: _tagged("uuid", str(value)),
    complex: lambda _, value: _tagged("complex", [repr(value.real), repr(value.imag)]),
    SecretStr: lambda encoder, value: encoder._secret(value),
    SecretBytes: lambda encoder, value: encoder._secret(value),
}
_BASES: tuple[tuple[type, Writer], ...] = (
    *_WRITERS.items(),
    (dict, lambda encoder, value: encoder._mapping(value)),
    (list, lambda encoder, value: encoder._items(value)),
    (str, lambda _, value: str.__str__(value)),
    (int, lambda _, value: int(value)),
    (float, lambda encoder, value: encoder.encode(float(value))),
    # Addresses and paths of pydantic's and the standard library's are understood by every model as text.
    (PurePath, lambda _, value: str(value)),
    (Mapping, lambda encoder, value: encoder._mapping(value)),
)


# In.


def loads(data: bytes | str) -> Any:
    """Undo `dumps`.

    Raises:
        WireError: The bytes are no JSON, or name a type that this end does not know.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    # Most frames name no type. A tag may be spelt with escapes.
    if _TAG not in data and _ESCAPE not in data:
        # What this reader refuses, the other one may know.
        try:
            return from_json(data)
        except ValueError:
            pass
    try:
        return _read(data.decode("utf-8", "surrogatepass"))
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame is not readable: {type(error).__name__}") from error


def _revived(value: dict[str, Any]) -> Any:
    kind = value.get(TAG)
    if kind is None:
        return value
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None or len(value) != 2 or "v" not in value:
        raise WireError("a frame holds a value of a type that this end does not know; update the older end")
    try:
        return read(value["v"])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise WireError(f"a frame holds a broken value of type `{kind}`") from error


_read = json.JSONDecoder(object_hook=_revived).decode


def _unbase64(value: Any) -> bytes:
    return base64.b64decode(value, validate=True)


_READERS: dict[str, Callable[[Any], Any]] = {
    "map": lambda pairs: {key: value for key, value in pairs},  # noqa: C416 - pairs must be checked to be pairs
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "bytes": _unbase64,
    "bytearray": lambda value: bytearray(_unbase64(value)),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(days=parts[0], seconds=parts[1], microseconds=parts[2]),
    "decimal": Decimal,
    "uuid": UUID,
    "float": float,
    "complex": lambda parts: complex(float(parts[0]), float(parts[1])),
    "secret": SecretStr,
    "secret_bytes": lambda value: SecretBytes(_unbase64(value)),
}


def holds_masked_secrets(frame: bytes) -> bool:
    """Whether secrets may have been left out of a frame; never wrong when it says no."""
    return _MASKED in frame


# The plain form.


def plain(model: BaseModel) -> dict[str, JsonValue]:
    """A model as release 0.1 sends it: null fields left out, nulls in dictionaries kept, secrets as asterisks.

    Raises:
        WireError: Something in it cannot be written as JSON.
    """
    try:
        return model.model_dump(mode="json", exclude_none=True, warnings=False, serialize_as_any=True)
    # Foreign objects' own serializers run here; pydantic's error is a ValueError, theirs may be anything.
    except Exception as error:
        raise WireError(f"a {type(model).__name__} cannot be written as JSON: {error}") from error
