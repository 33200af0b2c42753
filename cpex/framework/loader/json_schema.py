"""The JSON Schema of a configuration file, made from the models, for editors and other tools.

What the loader accepts, the schema accepts: also the lenient spellings (a number in quotes, a bare capability), the
words of older configurations and `{{ env.X }}` in place of any value. It refuses unknown keys, unknown words and values
of the wrong kind; rules between keys, files and URLs are the loader's.

What stands below `config` is the plugin's own. Where the plugin's class says how it is checked (`settings_model`), the
schema says it too, also of plugins that are disabled, which the loader does not make; other kinds may have anything.

Source: JSON Schema draft 7, the latest that editors' YAML support reads in full.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from cpex.framework.base import Plugin, hook_name
from cpex.framework.extensions.tiers import Capability
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.kinds import registered_class, registered_kinds, transport_class
from cpex.framework.loader.rules import IGNORED_KEYS
from cpex.framework.models.config import EXTRA_CAPABILITIES, LEGACY_MODES, Config

__all__ = ["config_schema", "sentences"]

_TEMPLATE = r"\{\{"
"""A text with a template in it may become a value of any kind."""
_TRUTH = "|".join(
    "".join(f"[{letter}{letter.upper()}]" for letter in word)
    for word in ("true", "false", "yes", "no", "on", "off", "t", "f", "y", "n")
)
_TEXTS = {
    "integer": rf"^\s*[-+]?[0-9][0-9_]*(\.0*)?\s*$|{_TEMPLATE}",
    "number": rf"[0-9]|^\s*[-+]?([iI][nN][fF]|[nN][aA][nN])|{_TEMPLATE}",
    "boolean": rf"^({_TRUTH}|[01])$|{_TEMPLATE}",
}
"""Texts that pydantic reads as a value of the type."""
_NOT_FOR_EDITORS = frozenset({"title", "uniqueItems", "format", "writeOnly"})
_LIMITS_OF_TEXT = frozenset({"enum", "pattern", "minLength", "maxLength"})
_OTHERS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "integer": ({"type": "boolean"},),
    "number": ({"type": "boolean"},),
    "boolean": ({"enum": [0, 1]},),
}
"""Values of other types that it reads as well."""


def config_schema(*, installed: bool = False) -> dict[str, Any]:
    """The schema, as JSON values; the same for every call of one release.

    Names of hooks and kinds are offered for completion, and any other text is accepted: plugins bring their own.

    Args:
        installed: Know the kinds of other packages in this environment too, and import them for their settings.

    Raises:
        PluginKindError: A kind of another package cannot be imported.
    """
    definitions: dict[str, Any] = {}
    root = _with_definitions(Config, definitions, closed=True)
    for key in sorted(IGNORED_KEYS):
        root["properties"][key] = {"description": "Has no effect; remove it.", "deprecated": True}
    # An empty file is an empty configuration.
    root["type"] = ["object", "null"]
    kinds = _kinds(own=True) | (_kinds(own=False) if installed else {})
    plugin = definitions["PluginConfig"]
    _offer_names(plugin["properties"], [*kinds, "external", "isolated_venv"])
    kinds["isolated_venv"] = transport_class("isolated_venv")
    plugin["allOf"] = list(_settings_rules(kinds, definitions))
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "cpex configuration"}
    return {**head, **root, "definitions": dict(sorted(definitions.items()))}


def _with_definitions(cls: type[BaseModel], definitions: dict[str, Any], *, closed: bool, prefix: str = "") -> Any:
    """A model's schema; those of what it is made of are added to `definitions`, their names after the prefix."""
    schema = cls.model_json_schema(ref_template=f"#/definitions/{prefix}{{model}}")
    models = {each.__name__: each for each in _models_of(cls)}
    words = {name: each["enum"] for name, each in schema.get("$defs", {}).items() if "enum" in each}
    for name, each in schema.pop("$defs", {}).items():
        inner = _of_model(models[name], each, closed) if name in models else _loosened(_words(name, each))
        definitions[prefix + name] = inner
    for name, field in schema.get("properties", {}).items():
        schema["properties"][name] = _keys_named(field, words)
    return _of_model(cls, schema, closed)


def _keys_named(field: dict[str, Any], words: Mapping[str, list[str]]) -> dict[str, Any]:
    """A mapping whose keys are the words of an enum, with each as a key of its own, which editors can complete."""
    enum = str(field.get("propertyNames", {}).get("$ref", "")).rpartition("/")[2].rpartition(".")[2]
    if enum not in words:
        return field
    value = field["additionalProperties"]
    kept = {key: each for key, each in field.items() if key != "propertyNames"}
    named = {"properties": dict.fromkeys(words[enum], value), "patternProperties": {_TEMPLATE: value}}
    return {**kept, **named, "additionalProperties": False}


def _of_model(cls: type[BaseModel], schema: dict[str, Any], closed: bool) -> dict[str, Any]:
    said = sentences(cls)
    properties = {
        name: _described(_loosened(each), said.get(name, "")) for name, each in schema.get("properties", {}).items()
    }
    described = {"description": _first_paragraph(schema.get("description", ""))}
    required = {"required": schema["required"]} if schema.get("required") else {}
    # The loader knows each key of its own sections; a plugin's model says itself what it does with others.
    shut = {"additionalProperties": False} if closed or cls.model_config.get("extra") == "forbid" else {}
    return {**described, "type": "object", "properties": properties, **required, **shut}


def _kinds(*, own: bool) -> dict[str, type[Plugin]]:
    """Registered kinds and their classes: those of this package, or those of others."""
    found = {
        name: entries
        for name, entries in sorted(registered_kinds().items())
        if own == any(entry.value.startswith("cpex.") for entry in entries)
    }
    # A name that two packages claim is refused when it is used.
    return {name: registered_class(name) for name, entries in found.items() if len(entries) == 1}


def _settings_rules(kinds: Mapping[str, type[Plugin]], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """For each class that tells its settings: where a plugin is of that kind, its `config` must fit them."""
    names: dict[type[Plugin], list[str]] = {}
    for name, cls in kinds.items():
        names.setdefault(cls, []).append(name)
    for cls, known in names.items():
        model = cls.settings_model
        if model is None:
            continue
        prefix = "" if model.__module__.startswith("cpex.") else f"{model.__module__}."
        path = f"{prefix}{model.__name__}"
        definitions[path] = _with_definitions(model, definitions, closed=False, prefix=prefix)
        settings = {"$ref": f"#/definitions/{path}"}
        needed = any(field.is_required() for field in model.model_fields.values())
        then: dict[str, Any] = {
            "properties": {"config": settings if needed else {"anyOf": [settings, {"type": "null"}]}}
        }
        if needed:
            then["required"] = ["config"]
        spelled = [*known, f"{cls.__module__}.{cls.__qualname__}"]
        yield {"if": {"properties": {"kind": {"enum": spelled}}, "required": ["kind"]}, "then": then}


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    # In draft 7 nothing beside a reference counts.
    inner = {"allOf": [schema]} if "$ref" in schema else schema
    return {"description": text, **inner} if text else inner


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema that takes what the loader takes, without pydantic's titles and formats."""
    kept = {key: value for key, value in schema.items() if key not in _NOT_FOR_EDITORS}
    if schema.get("uniqueItems") and isinstance(kept.get("default"), list):
        # The order of a set differs from process to process.
        kept["default"] = sorted(kept["default"])
    for key in ("anyOf", "allOf", "oneOf"):
        if key in kept:
            kept[key] = [_loosened(each) for each in kept[key]]
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _loosened(kept[key])
    for key in kept.keys() & {"properties", "patternProperties"}:
        kept[key] = {name: _loosened(each) for name, each in kept[key].items()}
    kind = kept.get("type")
    if isinstance(kind, str) and kind in _TEXTS:
        return _or_text(kept, *_OTHERS[kind], {"type": "string", "pattern": _TEXTS[kind]})
    if kind == "string" and kept.keys() & _LIMITS_OF_TEXT:
        return _or_text(kept, {"type": "string", "pattern": _TEMPLATE})
    return kept


def _or_text(schema: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """The schema or one of the others; what is said about the value stays outside."""
    beside: dict[str, Any] = {key: schema.pop(key) for key in ("default", "description") if key in schema}
    if "enum" in schema:
        schema.pop("type")
    return {**beside, "anyOf": [schema, *others]}


def _words(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An enum, with the words of older configurations where it has any."""
    return {**schema, "enum": [*schema["enum"], *LEGACY_MODES]} if name == "PluginMode" else schema


def _offer_names(plugin: dict[str, Any], kinds: list[str]) -> None:
    """Name what is known for the keys of a plugin whose values are open, and what capabilities there are."""
    hooks = [hook_name(each) for each in get_hook_registry().get_registered_hooks()]
    capabilities = sorted({each.value for each in Capability} | EXTRA_CAPABILITIES)
    plugin["hooks"]["items"] = {"anyOf": [{"enum": hooks}, {"type": "string"}]}
    del plugin["kind"]["type"]
    plugin["kind"]["anyOf"] = [{"enum": kinds}, {"type": "string"}]
    name = {"anyOf": [{"enum": capabilities}, {"type": "string", "pattern": _TEMPLATE}]}
    said = plugin["capabilities"]["description"]
    plugin["capabilities"] = {
        "description": said,
        "default": [],
        "anyOf": [{"type": "array", "items": name}, name, {"type": "null"}],
    }


def _models_of(cls: type[BaseModel]) -> set[type[BaseModel]]:
    """A model and all models that its fields hold."""
    found = {cls}
    todo: list[Any] = [field.annotation for field in cls.model_fields.values()]
    while todo:
        annotation = todo.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found.add(annotation)
                todo += [field.annotation for field in annotation.model_fields.values()]
        else:
            todo += getattr(annotation, "__args__", ())
    return found


@cache
def sentences(cls: type[Any]) -> Mapping[str, str]:
    """What the source says below each attribute of a class of ours, its bases included: `{attribute: text}`."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("cpex."):
            (node,) = ast.parse(inspect.getsource(base)).body
            if not isinstance(node, ast.ClassDef):
                continue
            for here, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    found[_target(here)] = " ".join(str(after.value.value).split())
    return found


def _target(node: ast.stmt) -> str:
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target)
    return ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
