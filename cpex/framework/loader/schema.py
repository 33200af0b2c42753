"""What pydantic and the models say about a document, in words for the operator and with places.

Two questions: which keys does no model know, and which values does a model refuse. Both are answered from the models
themselves, so a new field needs nothing here.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from datetime import date
from enum import Enum
from typing import Any

from pydantic import BaseModel, ValidationError

from cpex.framework.loader.faults import Findings, Path
from cpex.framework.loader.source_map import Node, SourceMap
from cpex.framework.loader.suggest import did_you_mean, shown

__all__ = ["report_refused_values", "report_unknown_keys"]

_EXPECTED = (
    ("string", "text"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("bool", "true or false"),
    ("list", "a list"),
    ("set", "a list"),
    ("frozen_set", "a list"),
    ("tuple", "a list"),
    ("iterable", "a list"),
    ("dict", "a mapping"),
    ("model", "a mapping"),
    ("mapping", "a mapping"),
)
"""Prefixes of pydantic's error types, and what the field takes."""

_WRONG_KIND = ("_type", "_parsing", "_from_float", "_attributes_type")
_KEY_ERROR = "[key]"
_EMPTY_HELP = "give it a value, or remove the key"


def report_unknown_keys(model: type[BaseModel], root: Node, findings: Findings, ignored: frozenset[str]) -> None:
    """Report every key of the document that its model does not know.

    Follows fields whose type is a model or a list of models, and no others: a plugin's own settings are its own.

    Args:
        ignored: Keys of the top level that are dealt with elsewhere.
    """
    for path, node, known in _mappings(model, root, ()):
        for key, (key_node, _) in (node.keys or {}).items():
            if key in known or (not path and key in ignored) or key_node.failed:
                continue
            findings.lapse(
                "config-unknown-key",
                f"unknown key {shown(key_node.source)}{_within(path)}",
                key_node.place,
                (*path, key_node.source if key_node.templated else key),
                did_you_mean(key, known),
            )


def _mappings(model: type[BaseModel], node: Node, path: Path) -> Iterator[tuple[Path, Node, list[str]]]:
    """Every mapping of the document that a model describes, with the keys that the model knows."""
    if node.keys is None:
        return
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    yield path, node, list(fields)
    for key, (_, child) in node.keys.items():
        inner = _model_in(fields.get(key)) if isinstance(key, str) else None
        if inner is None:
            continue
        yield from _mappings(inner, child, (*path, key))
        for index, item in enumerate(child.items or ()):
            yield from _mappings(inner, item, (*path, key, index))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone, optional or in a list."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    if typing.get_origin(annotation) is dict:
        return None
    return next((found for each in typing.get_args(annotation) if (found := _model_in(each)) is not None), None)


def _within(path: Path) -> str:
    if not path:
        return ""
    return " of a plugin" if len(path) == 2 and path[0] == "plugins" else f" under `{_last_name(path)}`"


def _last_name(path: Path) -> str:
    return next((str(part) for part in reversed(path) if not isinstance(part, int)), "")


def report_refused_values(
    error: ValidationError,
    source: SourceMap,
    findings: Findings,
    under: Path = (),
    model: type[BaseModel] | None = None,
) -> None:
    """Report every value that a model refused.

    Args:
        under: Where the model's data stand in the document.
        model: The model, to name the keys that it knows where one is unknown.
    """
    for each in error.errors(include_url=False, include_input=False):
        location = (*under, *each["loc"])
        known = _keys_at(model, each["loc"][:-1]) if each["type"] == "extra_forbidden" else []
        _Refusal(each["type"], location, each["msg"], each.get("ctx") or {}, source, known).report(findings)


def _keys_at(model: type[BaseModel] | None, location: Path) -> list[str]:
    """The keys that a model knows at a place inside of it."""
    for part in location:
        field = model.model_fields.get(part) if model is not None and isinstance(part, str) else None
        if field is not None:
            model = _model_in(field.annotation)
    return [field.alias or name for name, field in model.model_fields.items()] if model is not None else []


class _Refusal:
    """One value that a model refused."""

    def __init__(
        self, kind: str, location: Path, message: str, details: dict[str, Any], source: SourceMap, known: list[str]
    ) -> None:
        self.kind = kind
        self.about_key = bool(location) and location[-1] == _KEY_ERROR
        self.location = location[:-1] if self.about_key else location
        self.message = message
        self.details = details
        self.source = source
        self.known = known
        self.path = _existing(self.location, source)
        self.node = source.node(self.path)

    def report(self, findings: Findings) -> None:
        """Find words for it, unless the value's own fault has been reported already."""
        if self.node is not None and self.node.failed:
            return
        place = self.source.place(self.path)
        if self.kind == "missing":
            message = f"`{self.location[-1]}`{self._owner()} is missing"
            help = f"add `{self.location[-1]}:` and a value here"
            findings.fault("config-missing-key", message, place, self.location, help)
        elif self.kind == "extra_forbidden":
            message = f"unknown key {shown(_last_name(self.location))}{self._owner()}"
            help = did_you_mean(str(self.location[-1]), self.known) if self.known else ""
            findings.lapse("config-unknown-key", message, self.source.key_place(self.path), self.path, help)
        elif self.about_key:
            key = self.location[-1]
            message = (
                f"a name under `{_last_name(self.location[:-1])}`{self._owner()} must be text, not {_kind_of(key)}"
            )
            findings.fault("config-type", message, self.source.key_place(self.path), self.path, _quoting_help(key))
        elif self.kind in ("enum", "literal_error"):
            known = re.findall(r"'([^']*)'", str(self.details.get("expected", "")))
            message = f"unknown {_last_name(self.location)} {shown(self._written())}{self._owner('for')}"
            findings.fault("config-unknown-value", message, place, self.path, did_you_mean(self._written(), known))
        elif (expected := self._expected()) is not None:
            actual = _kind_of(self.node.value if self.node is not None else None)
            message = f"{self._subject()}{self._owner()} must be {expected}, not {actual}"
            findings.fault("config-type", message, place, self.path, self._type_help(expected))
        else:
            findings.fault("config-invalid-value", self.source.scrub(self._free_text()), place, self.path)

    def _expected(self) -> str | None:
        if not self.kind.endswith(_WRONG_KIND):
            return None
        return next((words for prefix, words in _EXPECTED if self.kind.startswith(prefix + "_")), None)

    def _subject(self) -> str:
        name = _last_name(self.location)
        if not name:
            return "the configuration"
        return f"an entry of `{name}`" if isinstance(self.location[-1], int) else f"`{name}`"

    def _written(self) -> str:
        """The value as it stands in the text, which shows no value of the environment."""
        node = self.node
        return "" if node is None else str(node.value if node.source is None else node.source)

    def _owner(self, preposition: str = "of") -> str:
        if len(self.location) < 3 or self.location[0] != "plugins":
            return ""
        name = self.source.node((*self.location[:2], "name"))
        named = name is not None and isinstance(name.value, str) and name.value
        return f" {preposition} plugin {shown(name.source)}" if name is not None and named else ""

    def _free_text(self) -> str:
        """A validator's own words, or pydantic's with the name of the field in them."""
        cause = self.details.get("error")
        subject = self._subject() + self._owner()
        if isinstance(cause, Exception):
            text = str(cause).strip().rstrip(".")
            return text if self._is_named_in(text) else f"{subject}: {text}"
        return f"{subject} {self.message.replace('Input should', 'must')}"

    def _is_named_in(self, text: str) -> bool:
        """Whether a text names what it is about: the key, or the plugin where it is about a whole plugin."""
        name = self.source.node((*self.location, "name")) if len(self.location) == 2 else None
        named = str(name.value) if name is not None and name.value else _last_name(self.location)
        return re.search(rf"\b{re.escape(named)}\b", text) is not None if named else False

    def _type_help(self, expected: str) -> str:
        value = self.node.value if self.node is not None else None
        if expected == "text":
            return _quoting_help(value)
        if expected == "a list" and isinstance(value, str):
            return f"write a list: `[{shown(self._written())[1:-1]}]`"
        return _EMPTY_HELP if value is None else ""


def _quoting_help(value: object) -> str:
    if isinstance(value, bool):
        return "YAML reads the words on, off, yes, no, true, false as truth values; put quotes around the text"
    if value is None:
        return _EMPTY_HELP
    return "put quotes around it" if isinstance(value, int | float | date) else ""


def _existing(location: Path, source: SourceMap) -> Path:
    """The longest part of a location that stands in the document."""
    path = location
    while path and source.node(path) is None:
        path = path[:-1]
    return path


def _kind_of(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Enum):
        return "text"
    kinds: tuple[tuple[Any, str], ...] = (
        (bool, "a truth value"),
        ((int, float), "a number"),
        (str, "text"),
        (date, "a date"),
        (dict, "a mapping"),
        ((list, set), "a list"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "binary data")
