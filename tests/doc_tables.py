"""Tables of the reference pages, made from the code that they describe."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable
from enum import Enum
from importlib import import_module
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from cpex.framework import conditions
from cpex.framework.extensions.tiers import Capability, _slot_registry
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.json_schema import sentences
from cpex.framework.models.config import EXTRA_CAPABILITIES, LEGACY_MODES

ABSENT = "none"


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a column that is empty throughout is left out."""
    columns = [column for column in zip(head, *lines, strict=True) if any(column[1:])]
    rows = [[cell.replace("|", r"\|") for cell in row] for row in zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(columns), *rows[1:]])


def find(path: str) -> Any:
    """What stands at a dotted path below `cpex.framework`."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"cpex.framework.{module}"), name)


def kind(annotation: Any) -> str:
    """A type in the words of somebody who writes YAML or an environment variable."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind(inside[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind(each) for each in inside if each is not types.NoneType))
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin in (list, set, frozenset):
        return f"list of {_plural(inside[0])}"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "word"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    simple = {str: "text", SecretStr: "secret", int: "whole number", float: "number", bool: "`true` or `false`"}
    return simple.get(annotation, "anything")


def _plural(annotation: Any) -> str:
    return {"text": "texts", "section": "sections"}.get(kind(annotation), kind(annotation))


def default(field: Any) -> str:
    """A field's default as YAML has it; of a model, as Python has it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return ABSENT
    if isinstance(value, BaseModel):
        return f"`{type(value).__name__}()`"
    value = sorted(value) if isinstance(value, frozenset) else value.value if isinstance(value, Enum) else value
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def fields(path: str) -> str:
    """The keys of a section of the configuration."""
    cls = find(path)
    lines = [
        (f"`{name}`", kind(field.annotation), default(field), sentences(cls).get(name, ""))
        for name, field in cls.model_fields.items()
    ]
    return table(("key", "value", "default", "meaning"), lines)


def variables(path: str) -> str:
    """The environment variables of a group of settings."""
    cls = find(path)
    lines = []
    for name, field in cls.model_fields.items():
        if name in cls.__annotations__:
            names = cls.OTHER_NAMES.get(name, (f"PLUGINS_{name.upper()}",))
            text = ", ".join(f"`{each}`" for each in names)
            lines.append((text, kind(field.annotation), default(field), sentences(cls).get(name, "")))
    return table(("variable", "value", "default", "meaning"), lines)


def words(path: str) -> str:
    """The words of a closed set."""
    cls = find(path)
    return table(("word", "meaning"), [(f"`{each.value}`", sentences(cls).get(each.name, "")) for each in cls])


def legacy_modes() -> str:
    """Words of older configurations."""
    return table(
        ("older word", "means"),
        [
            (f"`{old}`", ", ".join(f"`{key}: {value}`" for key, value in now.items()))
            for old, now in LEGACY_MODES.items()
        ],
    )


def capabilities() -> str:
    """What each capability opens."""
    lines = []
    for capability in [each.value for each in Capability] + sorted(EXTRA_CAPABILITIES):
        slots = _slot_registry.items()
        reads = [slot.value for slot, rule in slots if rule.read_cap == capability]
        writes = [slot.value for slot, rule in slots if rule.write_cap == capability]
        how = ["grows" if _slot_registry[slot].tier.value == "monotonic" else "is replaced" for slot in writes]
        lines.append((f"`{capability}`", _listed(reads + writes), f"{_listed(writes)} {how[0]}" if writes else ""))
    return table(("capability", "shows", "lets change"), lines)


def entities() -> str:
    """Which set of a condition counts on which hook, and what it is compared with."""
    lines = []
    for hook in sorted(get_hook_registry().get_registered_hooks()):
        counting = sorted(conditions.entity_fields(hook))
        # Where a hook's entity is named is a detail of that module, and just what the page has to tell.
        known = conditions._ENTITIES.get(hook)
        place = f"`{known[1]}`" if known else "the parts of its message" if counting else ""
        lines.append((f"`{hook}`", _listed(counting) or ABSENT, place or ABSENT))
    return table(("hook", "sets that count", "compared with"), lines)


def hooks() -> str:
    """Every built-in hook with its classes."""
    registry = get_hook_registry()
    lines = []
    for hook in registry.get_registered_hooks():
        payload, reply = registry.get_payload_type(hook), registry.reply_type(hook)
        assert payload is not None
        lines.append((f"`{hook}`", f"`{payload.__name__}`", f"`{reply.__name__}`" if reply else "the payload, changed"))
    return table(("hook", "payload", "`modified_payload` of the result"), lines)


def payload(path: str) -> str:
    """The fields of a payload class."""
    cls = find(path)
    lines = [
        (f"`{name}`", f"`{python_type(field.annotation)}`", default(field), sentences(cls).get(name, ""))
        for name, field in cls.model_fields.items()
    ]
    return table(("field", "type", "default", "meaning"), lines)


def python_type(annotation: Any) -> str:
    """A type as Python code writes it."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return python_type(inside[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(python_type(each) for each in inside)
    if inside:
        return f"{python_type(origin)}[{', '.join(python_type(each) for each in inside)}]"
    return "None" if annotation is types.NoneType else getattr(annotation, "__name__", str(annotation))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
