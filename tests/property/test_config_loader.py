"""No input, however broken, ends in anything but a configuration or faults that all have a place."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpex.framework.loader.config import CheckedConfig, ConfigLoader, config_digest
from cpex.framework.loader.faults import Findings
from cpex.framework.loader.templates import TemplatedText
from cpex.framework.loader.yaml_source import read_yaml
from cpex.framework.models.config import AppliedTo, Config, PluginCondition, PluginConfig, ToolTemplate
from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.models.transport import GRPCClientConfig, MCPClientConfig

VALID = """\
plugin_dirs: [./plugins, "{{ env.DIR }}"]
plugins:
  - &base
    name: pii
    kind: acme.Redactor
    mode: transform
    priority: {{ env.get("PRIORITY", 30) }}
    hooks: [tool_pre_invoke, tool_post_invoke]
    conditions:
      - tools: [search, fetch]
        user_patterns: ['@example.com']
    capabilities: [read_headers]
    config: {threshold: 0.5, when: 2020-01-01, text: "Hello {{user}}", nested: {a: [1, 2, {b: ~}]}}
  - <<: *base
    name: remote
    kind: external
    config: {}
    mcp: {proto: STREAMABLEHTTP, url: "http://{{ env.HOST | default('localhost') }}:8000/mcp"}
  - {name: aud, kind: a.B, mode: audit, on_error: ignore, timeout_s: 1.5, hooks: [agent_pre_invoke]}
server_settings: {host: 127.0.0.1, port: 8000}
hook_timeout_s: 10
"""
ENV = {"DIR": "/x", "PRIORITY": "7", "ODD": "a: b\n- '\"", "EMPTY": ""}

SNIPPETS = st.sampled_from(
    [
        *":-?&*!|>%@`'\"[]{},#~\t\n\r\x85\u2028\ufeff\x00\ue000é\U0001d54f",
        *(
            "<<: ",
            "&a ",
            "*a",
            "*base",
            "!!int ",
            "!!set ",
            "!!binary ",
            "!!python/object:x ",
            "---\n",
            "...\n",
            "%YAML 9.9\n",
        ),
        *(
            "{{",
            "}}",
            "{{ env.ODD }}",
            "{{ env.NONE }}",
            "{{ env.EMPTY }}",
            "{{ env.X | ",
            "{{ env.ODD | int }}",
            "{%",
            "{{x}}",
        ),
        *("0x_", "1:90:1", "9" * 30, "1e400", ".nan", "-.inf", "2001-99-99", "0b_", "=", "null", "on", "null: ", "1: "),
        *(
            "plugins:",
            "  - ",
            "name: pii\n",
            "mode: enforce\n",
            "conditions: ",
            "mcp: ",
            "tls: ",
            "certfile: ~nobody/x\n",
        ),
        *("grpc: {target: 'a:1', tls: {certfile: /, keyfile: x}}\n", "unix_socket: {path: relative}\n", "uds: ''\n"),
    ]
)


def assert_judged(checked: CheckedConfig) -> None:
    """Either usable, or every fault has a code, words and a place."""
    if checked.config is not None:
        assert not checked.faults
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", config_digest(checked.config))
        checked.loaded().plugin_locations()
    else:
        assert checked.faults
    for fault in (*checked.faults, *checked.warnings):
        assert fault.code.startswith("config-")
        assert fault.message
        assert fault.line is not None
        assert fault.column is not None
        assert min(fault.line, fault.column) >= 1
        assert fault.render()
    places = [(fault.line or 0, fault.column or 0) for fault in checked.faults]
    assert places == sorted(places)


def check(text: str | bytes, *, strict: bool = True) -> CheckedConfig:
    return ConfigLoader.check_text(text, file="c.yaml", strict=strict, env=ENV)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A valid configuration with some pieces cut, doubled or put in."""
    text = VALID
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(SNIPPETS | st.text(max_size=3) | st.just(text[start:end] * 2))
        text = text[:start] + piece + text[end:]
    return text


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)
MODELS = (
    Config,
    PluginConfig,
    PluginCondition,
    AppliedTo,
    ToolTemplate,
    MCPClientConfig,
    MCPClientTLSConfig,
    GRPCClientConfig,
)
KEYS = st.sampled_from(sorted({"plugin_settings", *(name for model in MODELS for name in model.model_fields)}))
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS | KEYS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4) | st.integers(), inner, max_size=6)
    ),
    max_leaves=30,
)


def test_what_the_mutations_begin_with_is_valid() -> None:
    assert check(VALID).faults == check(VALID).warnings == ()


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example("﻿plugins: []".encode())
def test_any_bytes_are_judged(data: bytes) -> None:
    assert_judged(check(data))


@settings(deadline=None)
@given(st.text(max_size=200) | st.lists(SNIPPETS, max_size=30).map("".join))
@example("{" * 3000)
@example("- " * 3000)
@example("? " * 3000)
@example("a: \ud800")
@example("a: " + "1:" * 2000 + "1")
@example("a: " + "9" * 5000)
@example("a: &a [*a]")
@example("&a a: *a")
@example("<<: *a")
@example("{{ env." + "(" * 500 + " }}")
@example("a: {{ env.X " + "| lower " * 500 + "}}")
def test_any_text_is_judged(text: str) -> None:
    assert_judged(check(text))


@settings(max_examples=300, deadline=None)
@given(mutations(), st.booleans())
def test_a_broken_configuration_is_judged(text: str, strict: bool) -> None:
    assert_judged(check(text, strict=strict))


@settings(deadline=None)
@given(DOCUMENTS)
@example({"plugins": [{"name": "a", "kind": "b.C", "capabilities": [[1], {"x": 1}]}]})
@example({"plugins": [{"name": "a", "kind": "external", "grpc": {"target": "a:1", "tls": {"certfile": "x" * 5000}}}]})
@example({"server_settings": {"uds": "~no_such_user_at_all/x"}})
@example({"plugins": {"a": 1}})
@example({"plugins": 5, "server_settings": {"uds": "x" * 5000}})
def test_any_document_is_judged(document: Any) -> None:
    assert_judged(check(yaml.safe_dump(document, allow_unicode=True)))


@settings(deadline=None)
@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_what_pyyaml_writes_is_read_as_pyyaml_reads_it(document: Any) -> None:
    text = yaml.safe_dump(document)
    findings = Findings()
    root = read_yaml(text, findings)
    assert findings.faults == ()
    assert same(None if root is None else root.value, yaml.safe_load(text))


@settings(max_examples=300, deadline=None)
@given(st.lists(SNIPPETS | st.sampled_from(["a", "b: ", "c", "x: 1\n", "  ", "\n"]), max_size=15).map("".join))
@example("a: &a {x: 1, y: 2}\nb: {<<: [*a, {x: 3}], z: 4}")
def test_text_that_is_accepted_means_what_pyyaml_makes_of_it(text: str) -> None:
    findings = Findings()
    root = read_yaml(text, findings)
    if not findings.faults:
        assert same(None if root is None else root.value, yaml.load(text, Loader=yaml.CSafeLoader))


@pytest.mark.conformance("D25")
@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_a_variable_never_changes_the_structure(value: str) -> None:
    text = 'a: {{ env.V }}\nb: "{{ env.V }}"\nc:\n  - {{ env.V }}\n  - [x, {{ env.V }}]\nd: |\n  {{ env.V }}\n'
    templates, findings = TemplatedText(text, {"V": value}), Findings()
    root = read_yaml(templates.text, findings, templates)
    assert all(fault.code == "config-yaml-value" for fault in findings.faults)
    assert root is not None
    assert list(root.value) == ["a", "b", "c", "d"]
    assert (root.value["b"], root.value["d"]) == (value, value + "\n")
    assert [len(root.value["c"]), len(root.value["c"][1])] == [2, 2]
    if isinstance(root.value["a"], str):
        assert root.value["a"] == value.strip(" \t\r\n")


@settings(deadline=None)
@given(st.text())
def test_placeholders_keep_every_character_in_its_place(text: str) -> None:
    for original in (text, text.replace("a", "{{ env.V }}"), "{{ env.V }}" + text):
        templates = TemplatedText(original, {})
        assert len(templates.text) == len(original)
        assert templates.restore(templates.text) == original


def same(left: Any, right: Any) -> bool:
    """Equality that takes two `nan` for the same, at every depth."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)
