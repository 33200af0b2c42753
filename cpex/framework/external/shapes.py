"""Which models are written by their fields, and which only by themselves.

A model may say how it, or a field, is written; most do not, and then a dump holds what the fields hold. Those are read
field by field, without a dump and without completing what the engine has left to be made later.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, RootModel

__all__ = ["hidden_fields", "seen_models"]

_MAX_CLASSES = 1024
seen_models: dict[type[BaseModel], frozenset[str] | None] = {}
"""Answers of `hidden_fields` that are known already."""


def hidden_fields(cls: type[BaseModel]) -> frozenset[str] | None:
    """Names of the fields that a model of this class never shows; `None` when it must be asked how it is written."""
    if len(seen_models) >= _MAX_CLASSES:
        # Classes may be made on the fly.
        seen_models.clear()
    hidden = seen_models[cls] = _hidden_fields(cls)
    return hidden


def _hidden_fields(cls: type[BaseModel]) -> frozenset[str] | None:
    decorators = cls.__pydantic_decorators__
    if (
        issubclass(cls, RootModel)
        or cls.model_dump is not BaseModel.model_dump
        or cls.model_config.get("extra") == "allow"
        or decorators.model_serializers
        or decorators.field_serializers
        or decorators.computed_fields
        or any(getattr(field, "exclude_if", None) is not None for field in cls.model_fields.values())
    ):
        return None
    schema = _own_schema(cls.__pydantic_core_schema__, cls)
    if schema is None or _says_how(schema):
        return None
    return frozenset(name for name, field in cls.model_fields.items() if field.exclude)


def _own_schema(schema: Any, cls: type[BaseModel]) -> Any:
    """The part of a compiled schema that describes the class's fields; `None` when there is no such part."""
    shared = {each.get("ref"): each for each in schema.get("definitions", ())} if isinstance(schema, dict) else {}
    while isinstance(schema, dict) and "serialization" not in schema:
        if schema.get("cls") is cls:
            return schema["schema"]
        # Around it may be shared definitions and validators of the whole model.
        schema = shared.get(schema["schema_ref"]) if "schema_ref" in schema else schema.get("schema")
    return None


def _says_how(node: Any) -> bool:
    """Whether anything in a schema says how it is written; models in it are asked themselves when they are met."""
    if isinstance(node, dict):
        if "serialization" in node:
            return True
        return node.get("type") != "model" and any(_says_how(each) for each in node.values())
    return isinstance(node, list | tuple) and any(_says_how(each) for each in node)
