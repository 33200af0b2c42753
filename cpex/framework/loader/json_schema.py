"""The JSON Schema of a configuration file, made from the models, for editors and other tools.

What the loader accepts, the schema accepts: also the lenient spellings (a number in quotes, a bare capability), the
words of older configurations and `{{ env.X }}` in place of any value. It refuses unknown keys, unknown words and values
of the wrong kind; rules between keys, files and URLs are the loader's.

Source: JSON Schema draft 7, the latest that editors' YAML support reads in full.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel

from cpex.framework.base import hook_name
from cpex.framework.extensions.tiers import Capability
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.kinds import GROUP
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
_OTHERS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "integer": ({"type": "boolean"},),
    "number": ({"type": "boolean"},),
    "boolean": ({"enum": [0, 1]},),
}
"""Values of other types that it reads as well."""


def config_schema() -> dict[str, Any]:
    """The schema, as JSON values; the same for every call of one release.

    Names of hooks and kinds are offered for completion, and any other text is accepted: plugins bring their own.
    """
    schema = Config.model_json_schema(ref_template="#/definitions/{model}")
    models = {cls.__name__: cls for cls in _models_of(Config)}
    definitions = {
        name: _of_model(models[name], each) if name in models else _loosened(_words(name, each))
        for name, each in sorted(schema.pop("$defs").items())
    }
    root = _of_model(Config, schema)
    for key in sorted(IGNORED_KEYS):
        root["properties"][key] = {"description": "Has no effect; remove it.", "deprecated": True}
    _offer_names(definitions["PluginConfig"]["properties"])
    # An empty file is an empty configuration.
    root["type"] = ["object", "null"]
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "cpex configuration"}
    return {**head, **root, "definitions": definitions}


def _of_model(cls: type[BaseModel], schema: dict[str, Any]) -> dict[str, Any]:
    said = sentences(cls)
    properties = {
        name: _described(_loosened(each), said.get(name, "")) for name, each in schema.get("properties", {}).items()
    }
    described = {"description": _first_paragraph(schema.get("description", ""))}
    required = {"required": schema["required"]} if schema.get("required") else {}
    return {**described, "type": "object", "properties": properties, **required, "additionalProperties": False}


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    # In draft 7 nothing beside a reference counts.
    inner = {"allOf": [schema]} if "$ref" in schema else schema
    return {"description": text, **inner} if text else inner


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema that takes what the loader takes, without pydantic's titles."""
    kept = {key: value for key, value in schema.items() if key not in ("title", "uniqueItems")}
    for key in ("anyOf", "allOf", "oneOf"):
        if key in kept:
            kept[key] = [_loosened(each) for each in kept[key]]
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _loosened(kept[key])
    kind = kept.get("type")
    if isinstance(kind, str) and kind in _TEXTS:
        beside: dict[str, Any] = {key: kept.pop(key) for key in ("default", "description") if key in kept}
        texts = {"type": "string", "pattern": _TEXTS[kind]}
        return {**beside, "anyOf": [kept, *_OTHERS[kind], texts]}
    if "enum" in kept and kind == "string":
        words = {"enum": kept.pop("enum")}
        del kept["type"]
        return {**kept, "anyOf": [words, {"type": "string", "pattern": _TEMPLATE}]}
    return kept


def _words(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An enum, with the words of older configurations where it has any."""
    return {**schema, "enum": [*schema["enum"], *LEGACY_MODES]} if name == "PluginMode" else schema


def _offer_names(plugin: dict[str, Any]) -> None:
    """Name what is known for the keys of a plugin whose values are open, and what capabilities there are."""
    hooks = [hook_name(each) for each in get_hook_registry().get_registered_hooks()]
    own = sorted(entry.name for entry in entry_points(group=GROUP) if entry.value.startswith("cpex."))
    capabilities = sorted({each.value for each in Capability} | EXTRA_CAPABILITIES)
    plugin["hooks"]["items"] = {"anyOf": [{"enum": hooks}, {"type": "string"}]}
    del plugin["kind"]["type"]
    plugin["kind"]["anyOf"] = [{"enum": [*own, "external", "isolated_venv"]}, {"type": "string"}]
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
