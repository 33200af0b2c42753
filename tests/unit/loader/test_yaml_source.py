from __future__ import annotations

import pytest
import yaml

from cpex.framework.loader.faults import Findings
from cpex.framework.loader.source_map import SourceMap
from cpex.framework.loader.templates import TemplatedText
from cpex.framework.loader.yaml_source import MAX_DEPTH, read_yaml


def read(text: str, env: dict[str, str] | None = None, *, strict: bool = True) -> tuple[object, Findings]:
    findings = Findings("c.yaml", strict=strict)
    templates = TemplatedText(text, env) if env is not None else None
    root = read_yaml(text if templates is None else templates.text, findings, templates)
    return (None if root is None else root.value), findings


def only_fault(text: str, env: dict[str, str] | None = None) -> tuple[str, int | None, int | None, str]:
    _, findings = read(text, env)
    (fault,) = findings.faults
    return fault.code, fault.line, fault.column, fault.message


@pytest.mark.conformance("D3")
@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 1.5, null, ~, yes, 0x1f, 0o7, 017, 1:30, .inf, 2001-01-02, 2001-01-02T03:04:05Z]",
        "a: |\n  x\n  y\nb: >-\n  x\n  y\nc: 'it''s'\nd: \"\\u00e9\\n\"",
        "a: &x {p: 1, q: {r: 2}}\nb: {<<: *x, q: 3}\nc: {<<: [*x, {p: 9, s: 4}]}\nd: *x",
        "x: {<<: {a: 1, b: 1}, b: 2}",
        "a: !!str 5\nb: !!int '5'\nc: !!float 1\nd: !!binary aGk=\ne: ! 5\nf: !!bool 'on'\ng: !!null ''",
        "a: !!set {x, y}\nb: !!omap [{x: 1}, {y: 2}]\nc: !!pairs [{x: 1}, {x: 2}]\nd: !!seq [1]\ne: !!map {a: 1}",
        "=: 1",
        "? a\n: b",
        "2: a\ntrue: b\nnull: c\n2001-01-01: d",
        "--- {a: 1}\n...\n",
        "'<<': 1",
        "- - - a\n- b",
        "just text",
        "",
        "# only a comment\n",
    ],
)
def test_text_means_what_pyyaml_makes_of_it(text: str) -> None:
    value, findings = read(text)
    assert findings.faults == ()
    assert value == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\nb: {c: 1, d: 2, c: 3}", ("config-duplicate-key", 2, 17, "key `c` stands here a second time")),
        ("a: {<<: {x: 1}, <<: {x: 2}}", ("config-duplicate-key", 1, 17, "key `<<` stands here a second time")),
        ("a: b: c", ("config-yaml-syntax", 1, 5, "invalid YAML: mapping values are not allowed in this context")),
        ("a:\n\t- b", ("config-yaml-syntax", 2, 1, "invalid YAML: found character that cannot start any token")),
        ("a: [1", ("config-yaml-syntax", 1, 6, "invalid YAML: did not find expected ',' or ']'")),
        ("a: *b", ("config-yaml-syntax", 1, 4, "alias `*b` has no anchor above it")),
        ("a: &a [*a]", ("config-yaml-syntax", 1, 8, "alias `*a` stands inside the value that it names")),
        ("a: &x 1\nb: &x 2", ("config-yaml-syntax", 2, 4, "anchor `&x` is defined a second time")),
        ("a: &x [&x 1]", ("config-yaml-syntax", 1, 8, "anchor `&x` is defined a second time")),
        ("a: 1\n---\nb: 1", ("config-yaml-syntax", 2, 1, "the file holds more than one YAML document")),
        ("a: x\x00y", ("config-yaml-syntax", 1, 5, "character '\\x00' is not allowed in YAML")),
        ("a: \ud800", ("config-yaml-syntax", 1, 4, "character '\\ud800' is not allowed in YAML")),
        ("a: {{user}}", ("config-yaml-syntax", 1, 5, "a key must be a single value, not a list or a mapping")),
        ("<<: 5", ("config-yaml-syntax", 1, 5, "`<<` merges a mapping or a list of mappings")),
        ("a: 2001-99-99", ("config-yaml-value", 1, 4, "`2001-99-99` is not a valid timestamp")),
        ("a: 0x_", ("config-yaml-value", 1, 4, "`0x_` is not a valid int")),
        ("a: =", ("config-yaml-value", 1, 4, "`=` needs quotes to be text")),
        ("a: !!bool maybe", ("config-yaml-value", 1, 4, "`maybe` is not a valid bool")),
        (
            "a: !!python/object/apply:os.system [x]",
            (
                "config-yaml-value",
                1,
                4,
                "the tag `!!python/object/apply:os.system` does not fit this value or is not allowed",
            ),
        ),
        ("a: !!set x", ("config-yaml-value", 1, 4, "the tag `!!set` does not fit this value or is not allowed")),
        ("a: " + "9" * 500, ("config-yaml-value", 1, 4, "a number may have at most 400 characters")),
    ],
)
def test_what_is_wrong_is_reported_with_its_place(text: str, fault: tuple[str, int, int, str]) -> None:
    assert only_fault(text) == fault


@pytest.mark.conformance("D3")
def test_a_duplicate_key_names_the_first_and_the_last_counts_when_it_is_let_pass() -> None:
    value, findings = read("a: 1\nb: 2\na: 3\n", strict=False)
    assert value == {"a": 3, "b": 2}
    assert findings.faults == ()
    (warning,) = findings.warnings
    assert (warning.line, warning.path, warning.help) == (3, "a", "the first one is in line 1; keep one of them")


def test_aliases_of_aliases_cannot_multiply() -> None:
    levels = "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))
    assert only_fault("a0: &a0 [x, x]\n" + levels)[0] == "config-too-large"


def test_merges_of_merges_cannot_multiply() -> None:
    levels = "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60))
    assert only_fault("a0: &a0 {x: 1}\n" + levels)[0] == "config-too-large"


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 5000, "- " * 5000 + "x"])
def test_nesting_is_bounded(text: str) -> None:
    assert only_fault(text)[3] == f"the document nests deeper than {MAX_DEPTH} levels"


def test_nesting_through_aliases_is_bounded() -> None:
    levels = "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200))
    assert only_fault("a0: &a0 [x]\n" + levels)[0] == "config-too-large"


def test_the_deepest_nesting_that_is_allowed_can_be_read() -> None:
    value, findings = read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert findings.faults == ()
    assert isinstance(value, list)


def test_places_lead_to_keys_and_values() -> None:
    root = read_yaml("a: 1\nlist:\n  - x\n  - {k: v}\nq: &q {z: 1}\nr: {<<: *q}\n", Findings())
    source = SourceMap(root)
    assert source.place(("a",)) == (1, 4)
    assert source.key_place(("list",)) == (2, 1)
    assert source.place(("list", 1, "k")) == (4, 9)
    assert source.key_place(("list", 1, "k")) == (4, 6)
    assert source.key_place(("list", 0)) == (3, 5)
    assert source.place(("r", "z")) == (5, 11), "a merged key stands where it was written"
    assert source.place(("list", 7, "nothing")) == (3, 3), "a path that leads nowhere ends at its last part"
    assert source.place(()) == (1, 1)
    assert SourceMap(None).place(("a",)) == (1, 1)


@pytest.mark.conformance("D25")
def test_an_unquoted_template_is_typed_as_yaml_types_its_text() -> None:
    env = {"PORT": "8080", "ON": "true", "NOTHING": "", "NULL": "null", "T": " 7 ", "HOST": "h"}
    text = "a: {{ env.PORT }}\nb: {{env.ON}}\nc: {{ env.NOTHING }}\nd: {{ env.NULL }}\ne: {{ env.T }}\n"
    text += "f: http://{{ env.HOST }}:{{ env.PORT }}/\ng: [{{env.PORT}}, x{{env.PORT}}]\n{{ env.HOST }}: k"
    value, findings = read(text, env)
    assert findings.faults == ()
    assert value == {
        "a": 8080,
        "b": True,
        "c": None,
        "d": None,
        "e": 7,
        "f": "http://h:8080/",
        "g": [8080, "x8080"],
        "h": "k",
    }


def test_a_template_in_quotes_stays_text() -> None:
    env = {"PORT": "8080"}
    text = 'a: \'{{ env.PORT }}\'\nb: "{{ env["PORT"] }}"\nc: |\n  {{ env.PORT }}\nd: !!str {{ env.PORT }}\n'
    value, findings = read(text, env)
    assert findings.faults == ()
    assert value == {"a": "8080", "b": "8080", "c": "8080\n", "d": "8080"}


@pytest.mark.conformance("D25")
@pytest.mark.parametrize(
    "secret",
    [
        "a: b",
        "x\ny: z\n- q",
        '"',
        "'",
        "#c",
        "[1, 2]",
        "{a: 1}",
        "*a",
        "&a",
        "!!int 5",
        "|",
        "<<",
        "=",
        "---",
        "& < > ' \"",
    ],
)
def test_a_value_cannot_add_structure(secret: str) -> None:
    text = "a: {{ env.S }}\nb: \"{{ env.S }}\"\nc: '{{ env.S }}'\nd: [{{ env.S }}, 1]\n"
    value, findings = read(text, {"S": secret})
    assert findings.faults == ()
    assert value == {"a": secret, "b": secret, "c": secret, "d": [secret, 1]}


def test_templates_in_comments_are_not_looked_at() -> None:
    value, findings = read("a: 1 # {{ env.NONE }} {{ env.!! }} {{ env.\n# {% env.X %}", {})
    assert (value, findings.faults) == ({"a": 1}, ())


def test_templates_that_have_no_value_are_reported_at_their_own_place() -> None:
    _, findings = read('a: "x {{ env.NONE }}"\nb: {{ env.A | nope }}\nc: "{{ env.A"\n', {"A": "1"})
    assert [(each.code, each.line, each.column, each.path) for each in findings.faults] == [
        ("config-undefined-variable", 1, 7, "a"),
        ("config-template", 2, 4, "b"),
        ("config-template", 3, 4, "c"),
    ]
    assert findings.faults[0].help == 'set it, or give a default: `{{ env.get("NONE", "…") }}`'


def test_an_undefined_variable_that_is_let_pass_is_the_empty_text() -> None:
    value, findings = read("a: {{ env.NONE }}\nb: x{{ env.NONE }}y", {}, strict=False)
    assert value == {"a": "", "b": "xy"}
    assert [each.code for each in findings.warnings] == ["config-undefined-variable"] * 2


def test_without_templates_nothing_is_substituted() -> None:
    assert read("a: '{{ env.HOME }}'")[0] == {"a": "{{ env.HOME }}"}
