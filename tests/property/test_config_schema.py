"""The schema that editors use and the loader agree."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft7Validator
from property.test_config_loader import DOCUMENTS, ENV, VALID, mutations

from cpex.framework.loader.config import CheckedConfig, ConfigLoader
from cpex.framework.loader.json_schema import config_schema

SCHEMA = config_schema()
VALIDATOR = Draft7Validator(SCHEMA)
PLUGIN = {"name": "p", "kind": "a.B", "hooks": ["tool_pre_invoke"]}
REMOTE = {"name": "p", "kind": "external"}
BASES: dict[str, dict[str, Any]] = {
    "": {},
    "plugins.0": {"plugins": [PLUGIN]},
    "plugins.0.conditions.0": {"plugins": [{**PLUGIN, "conditions": [{}]}]},
    "plugins.0.applied_to": {"plugins": [{**PLUGIN, "applied_to": {}}]},
    "plugins.0.applied_to.tools.0": {"plugins": [{**PLUGIN, "applied_to": {"tools": [{"tool_name": "t"}]}}]},
    "plugins.0.applied_to.prompts.0": {"plugins": [{**PLUGIN, "applied_to": {"prompts": [{"prompt_name": "t"}]}}]},
    "plugins.0.mcp": {"plugins": [{**REMOTE, "mcp": {"proto": "STDIO", "script": "run.sh"}}]},
    "plugins.0.mcp.tls": {"plugins": [{**REMOTE, "mcp": {"proto": "STREAMABLEHTTP", "url": "http://h/x", "tls": {}}}]},
    "plugins.0.grpc": {"plugins": [{**REMOTE, "grpc": {"target": "h:1"}}]},
    "plugins.0.grpc.tls": {"plugins": [{**REMOTE, "grpc": {"target": "h:1", "tls": {}}}]},
    "plugins.0.unix_socket": {"plugins": [{**REMOTE, "unix_socket": {"path": "/x"}}]},
    "server_settings": {"server_settings": {}},
    "server_settings.tls": {"server_settings": {"tls": {}}},
    "grpc_server_settings": {"grpc_server_settings": {}},
    "grpc_server_settings.tls": {"grpc_server_settings": {"tls": {}}},
    "unix_socket_server_settings": {"unix_socket_server_settings": {}},
}
"""Where fields stand -> the smallest document that has the place."""
TEMPLATE = "{{ env.DIR }}"
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 8000, -1, 5.0, 1.5, float("inf"), float("nan")),
    *("", "x", "5", " 7 ", "1_000", "5.0", "1e3", ".5", "inf", "-Infinity", "NaN", "yes", "OFF", "t", "N", "1", "TRUE"),
    *("transform", "enforce", "permissive", "ignore", "STDIO", "require", "Optional", "read_headers", TEMPLATE),
    *([], ["x"], ["read_headers", "read_headers"], [1], [{}], {}, {"a": "b"}, {"a": 1}, date(2020, 1, 1)),
]


def check(document: Any, *, templates: bool = True) -> CheckedConfig:
    text = document if isinstance(document, str) else yaml.safe_dump(document, allow_unicode=True)
    return ConfigLoader.check_text(text, strict=True, env=ENV, use_jinja=templates)


def as_json(value: Any) -> Any:
    """What YAML has and JSON has not, in the form that it has when it is written as JSON."""
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | set):
        return [as_json(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value


def place(document: dict[str, Any], path: str) -> dict[str, Any]:
    node: Any = document
    for part in filter(None, path.split(".")):
        node = node[int(part)] if part.isdigit() else node[part]
    assert isinstance(node, dict)
    return node


def fields_at(path: str) -> list[str]:
    """The keys that the schema knows at a place."""
    node: dict[str, Any] = SCHEMA
    for part in filter(None, path.split(".")):
        node = node["items"] if part.isdigit() else node["properties"][part]
        node = next((each for each in node.get("anyOf", node.get("allOf", [node])) if each.get("type") != "null"), node)
        if "$ref" in node.get("items", {}) and not part.isdigit():
            continue
        if "$ref" in node:
            node = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
    return list(node["properties"])


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", BASES)
def test_whatever_value_of_a_field_the_loader_accepts_the_schema_accepts(path: str) -> None:
    for name in fields_at(path):
        for value in VALUES:
            document = copy.deepcopy(BASES[path])
            place(document, path)[name] = value
            if check(document).config is not None:
                assert list(VALIDATOR.iter_errors(document)) == [], (path, name, value)


@settings(max_examples=300, deadline=None)
@given(mutations() | DOCUMENTS.map(yaml.safe_dump))
def test_whatever_document_the_loader_accepts_the_schema_accepts(text: str) -> None:
    checked = check(text)
    root = checked.source.node(())
    if checked.config is not None:
        document = as_json(root.value if root is not None else None)
        assert list(VALIDATOR.iter_errors(document)) == []


def test_what_the_mutations_begin_with_is_valid() -> None:
    root = check(VALID).source.node(())
    assert root is not None
    assert list(VALIDATOR.iter_errors(as_json(root.value))) == []


WRONG_BY_THEMSELVES = {"config-unknown-key", "config-unknown-value", "config-missing-key", "config-type"}
"""Codes of faults that a schema can see: of one key or one value."""


@pytest.mark.parametrize("path", BASES)
def test_unknown_keys_are_refused_by_both(path: str) -> None:
    document = copy.deepcopy(BASES[path])
    place(document, path)["prioriti"] = 1
    assert [fault.code for fault in check(document).faults] == ["config-unknown-key"]
    (error,) = VALIDATOR.iter_errors(document)
    # One level down where a section is optional.
    assert "prioriti" in error.message + "".join(each.message for each in error.context or ())


@pytest.mark.parametrize("path", [path for path in BASES if path])
def test_values_of_a_wrong_kind_and_unknown_words_are_refused_by_both(path: str) -> None:
    # What a template becomes, a schema cannot know; a date is text to it.
    plain = [value for value in VALUES if value != TEMPLATE and not isinstance(value, date)]
    for name in fields_at(path):
        for value in plain:
            document = copy.deepcopy(BASES[path])
            place(document, path)[name] = value
            codes = {fault.code for fault in check(document).faults}
            if codes and codes <= WRONG_BY_THEMSELVES:
                assert list(VALIDATOR.iter_errors(document)) != [], (path, name, value)


def test_old_files_are_not_underlined() -> None:
    document = {"plugin_settings": {"plugin_timeout": 30}, "plugins": [{**PLUGIN, "mode": "enforce_ignore_error"}]}
    assert check(document).faults == ()
    assert list(VALIDATOR.iter_errors(document)) == []


def test_editors_are_offered_names_and_told_what_keys_mean() -> None:
    plugin = SCHEMA["definitions"]["PluginConfig"]["properties"]
    assert "cmf.tool_pre_invoke" in plugin["hooks"]["items"]["anyOf"][0]["enum"]
    assert "security.TokenBudgetPlugin" in plugin["kind"]["anyOf"][0]["enum"]
    assert "read_headers" in plugin["capabilities"]["anyOf"][0]["items"]["anyOf"][0]["enum"]
    for name, model in {"": SCHEMA, **SCHEMA["definitions"]}.items():
        silent = [key for key, each in model.get("properties", {}).items() if not each.get("description")]
        assert silent == [], name
