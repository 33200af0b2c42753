from __future__ import annotations

import pytest

from cpex.framework.loader.template_grammar import TemplateError, UndefinedVariable
from cpex.framework.loader.templates import TemplatedText, mentions_env

ENV = {"HOST": "h.example", "PORT": "8080", "EMPTY": "", "FLAG": "On", "RATE": "0.5", "with-dash": "d"}


def value(template: str) -> object:
    """What one template stands for, as the only text of a scalar."""
    text = TemplatedText(template, ENV)
    expansion = text.expand(text.text)
    assert expansion is not None, "not recognised as a template"
    if expansion.failures:
        raise expansion.failures[0][1]
    return expansion.typed[0] if expansion.typed is not None else expansion.text


@pytest.mark.conformance("D25")
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ env.HOST }}", "h.example"),
        ("{{env.HOST}}", "h.example"),
        ('{{ env["HOST"] }}', "h.example"),
        ("{{ env['with-dash'] }}", "d"),
        ('{{ env.get("HOST") }}', "h.example"),
        ('{{ env.get("NONE", "x") }}', "x"),
        ('{{ env.get("NONE", 5) }}', 5),
        ('{{ env.get("NONE", env.get("ALSO_NONE", env.PORT)) }}', "8080"),
        ('{{ env.NONE | default("d") }}', "d"),
        ('{{ env.EMPTY | default("d") }}', ""),
        ('{{ env.EMPTY | default("d", true) }}', "d"),
        ("{{ env.NONE | default(env.ALSO_NONE | default(false)) }}", False),
        ('{{ env.NONE | default("It\\"s \\n") }}', 'It"s \n'),
        ('{{ env.NONE | default("a }} b") }}', "a }} b"),
        ("{{ env.NONE | default(('x')) }}", "x"),
        ("{{ env.NONE | default(none) }}", ""),
        ("{{ env.NONE | default(-1.5) }}", -1.5),
        ("{{ env.PORT | int }}", 8080),
        ("{{ env.RATE | float }}", 0.5),
        ("{{ env.FLAG | bool }}", True),
        ("{{ env.EMPTY | bool }}", False),
        ("{{ env.HOST | upper }}", "H.EXAMPLE"),
        ("{{ env.FLAG | lower }}", "on"),
        ("{{ env.NONE | default('A') | lower }}", "a"),
        ("{{ env.get }}", None),
    ],
)
def test_a_template_stands_for_its_variable_or_default(template: str, expected: object) -> None:
    if expected is None:
        with pytest.raises(UndefinedVariable, match="`get`"):
            value(template)
        return
    result = value(template)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.conformance("D25")
@pytest.mark.parametrize(
    "template",
    [
        "{{ env }}",
        "{{ env.HOST.upper() }}",
        "{{ env.HOST + 'x' }}",
        "{{ env.HOST if env.PORT else 1 }}",
        "{{ env.HOST | trim }}",
        "{{ env.HOST | int(5) }}",
        "{{ env.HOST | default }}",
        "{{ env[HOST] }}",
        "{{ env.get(HOST) }}",
        "{{ env.get('NONE', 'a', 'b') }}",
        "{{ env.HOST | int }}",
        "{{ env.HOST | float }}",
        "{{ env.HOST | bool }}",
        "{{ env.NONE | default(" + "(" * 30 + "1" + ")" * 30 + ") }}",
        "{{ env.HOST " + "| lower " * 210 + "}}",
    ],
)
def test_anything_else_of_the_environment_is_an_error(template: str) -> None:
    with pytest.raises(TemplateError):
        value(template)


def test_an_error_never_quotes_the_value() -> None:
    with pytest.raises(TemplateError) as caught:
        value("{{ env.HOST | int }}")
    assert "h.example" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.conformance("D25")
def test_an_undefined_variable_is_named() -> None:
    with pytest.raises(UndefinedVariable) as caught:
        value("{{ env.NONE | lower }}")
    assert str(caught.value) == "environment variable `NONE` is not set and has no default"


def test_a_variable_that_is_not_utf8_is_refused() -> None:
    text = TemplatedText("{{ env.BAD }}", {"BAD": "a\udcff"})
    expansion = text.expand(text.text)
    assert expansion is not None
    assert str(expansion.failures[0][1]) == "environment variable `BAD` does not hold valid UTF-8"


@pytest.mark.conformance("D25")
@pytest.mark.parametrize(
    "text", ["plain", "{{user}}", "{{ user.env.x }}", "{{ environment }}", "{{ my_env.X }}", "{{ env.X", "{% x %}"]
)
def test_other_text_between_braces_is_left_alone(text: str) -> None:
    assert TemplatedText(text, ENV).text == text


def test_placeholders_keep_the_length_and_the_lines_of_the_text() -> None:
    original = 'a: {{ env.HOST }}:{{env.PORT}}\nb: \'{{ env.get("X", "y") }}\' # {{ env.Z }}\n'
    text = TemplatedText(original, ENV).text
    assert [len(line) for line in text.split("\n")] == [len(line) for line in original.split("\n")]
    assert "{{" not in text


def test_characters_that_the_text_uses_already_make_no_placeholder() -> None:
    original = "\ue000\ue001 {{ env.HOST }}"
    text = TemplatedText(original, ENV)
    expansion = text.expand(text.text)
    assert expansion is not None
    assert expansion.text == "\ue000\ue001 h.example"
    assert expansion.source == original


def test_a_message_shows_templates_in_place_of_values() -> None:
    text = TemplatedText("{{ env.TOKEN }} {{ env.LONG }}", {"TOKEN": "s3cret", "LONG": "s3cret-and-more"})
    text.expand(text.text)
    assert text.scrub("s3cret-and-more is not s3cret") == "{{ env.LONG }} is not {{ env.TOKEN }}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ x or env.Y }}", True),
        ("{% if env.Y %}", True),
        ("{{ env.X", True),
        ("{{ 'env.X' }}", False),
        ("{{ user.env.X }}", False),
        ("{{user}} and env.X", False),
        ("{" * 50_000, False),
        ("{{ env.Y }} " * 2, True),
    ],
)
def test_what_reads_like_the_environment_is_noticed(text: str, expected: bool) -> None:
    assert mentions_env(text) is expected
