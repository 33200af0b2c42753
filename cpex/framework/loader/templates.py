"""Environment variables in configuration text: `{{ env.X }}` and its few relatives.

Templates are recognised in the raw text, before it is parsed as YAML, and each is exchanged for a placeholder of the
same length. So an unquoted template is legal YAML, every line and column stays true, and the value that replaces the
placeholder afterwards, inside one scalar, cannot add structure to the document however it is spelt.

All other text between double braces belongs to whoever reads the setting and is left alone. What reads like an attempt
at the environment but is none is an error. This module knows neither YAML nor files.

Source: docs/reference/config-errors.md, "Templates".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpex.framework.loader.template_grammar import Evaluate, TemplateError, UndefinedVariable, Unset, as_text, parse

__all__ = ["Expansion", "Template", "TemplatedText", "mentions_env"]

_START = re.compile(r"\{\{[ \t]*env(?![A-Za-z0-9_])")
_OPENING = re.compile(r"\{[{%]")
_STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_MENTIONS_ENV = re.compile(r"(?<![\w.])env\s*(?:[.\[|}]|$)")
_PRIVATE_USE = range(0xE000, 0xF900)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Template:
    """One template of the text: how it is written and where, and how to work it out or why that is impossible."""

    text: str
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    evaluate: Evaluate | None
    problem: str = ""

    def value(self, env: Mapping[str, str]) -> Any:
        """What the template stands for: text, a number, a truth value or `None`.

        Raises:
            UndefinedVariable: No variable of that name, and no default.
            TemplateError: The template is not one of the supported forms, or the value does not fit a filter.
        """
        if self.evaluate is None:
            raise TemplateError(self.problem)
        result = self.evaluate(env)
        if isinstance(result, Unset):
            raise UndefinedVariable(result.name)
        return result


@dataclass(frozen=True, slots=True)
class Expansion:
    """A scalar whose placeholders have been replaced."""

    text: str
    """The complete text."""
    source: str
    """The text as it was written, with the templates in it. Safe to show: it holds no value of the environment."""
    failures: tuple[tuple[Template, TemplateError], ...] = ()
    """Templates that have no value, in order; each left an empty text."""
    typed: tuple[Any] | None = None
    """The value itself, when the scalar is one template whose filter made a number or a truth value."""


class TemplatedText:
    """Configuration text with a placeholder for each template.

    Attributes:
        text: The text to parse. Same length and same lines as the original.
    """

    def __init__(self, original: str, env: Mapping[str, str]) -> None:
        self._env = env
        self._templates: list[Template] = []
        self._values: dict[str, str] = {}
        self._open, self._close = _unused_marks(original) if "{{" in original else ("", "")
        self._placeholder = re.compile(f"{self._open}([0-9a-z]+){self._close}+") if self._open else None
        self.text = self._replace(original) if self._open else original

    def expand(self, scalar: str) -> Expansion | None:
        """Replace the placeholders in one scalar; `None` when it holds none."""
        if self._placeholder is None or self._open not in scalar:
            return None
        failures: list[tuple[Template, TemplateError]] = []
        values: list[Any] = []

        def substitute(match: re.Match[str]) -> str:
            template = self._template(match)
            try:
                value = template.value(self._env)
            except TemplateError as error:
                failures.append((template, error))
                value = ""
            values.append(value)
            text = as_text(value)
            if isinstance(value, str):
                self._values[text] = template.text
            return text

        text = self._placeholder.sub(substitute, scalar)
        alone = self._placeholder.fullmatch(scalar) is not None and isinstance(values[0], int | float)
        return Expansion(text, self.restore(scalar), tuple(failures), (values[0],) if alone else None)

    def restore(self, text: str) -> str:
        """The text as it was written: placeholders become the templates again."""
        if self._placeholder is None:
            return text
        return self._placeholder.sub(lambda match: self._template(match).text, text)

    def scrub(self, message: str) -> str:
        """A message without the values that came from the environment: each is shown as its template.

        Values under four characters stay: they are no secrets, and they are parts of ordinary words.
        """
        for value, template in sorted(self._values.items(), key=lambda item: -len(item[0])):
            if len(value) >= 4:
                message = message.replace(value, template)
        return message

    def _template(self, match: re.Match[str]) -> Template:
        return self._templates[int(match[1], 36)]

    def _replace(self, original: str) -> str:
        parts: list[str] = []
        position = line = line_start = 0
        while (start := _START.search(original, position)) is not None:
            parsed = parse(original, start.end())
            newline = original.rfind("\n", position, start.start())
            if newline >= 0:
                line += original.count("\n", position, start.start())
                line_start = newline + 1
            parts.append(original[position : start.start()])
            if parsed.end is None:
                parts.append(original[start.start() : start.end()])
                position = start.end()
                continue
            parts.append(self._mark(len(self._templates), parsed.end - start.start()))
            column = start.start() - line_start + 1
            self._templates.append(
                Template(original[start.start() : parsed.end], line + 1, column, parsed.evaluate, parsed.problem),
            )
            position = parsed.end
        return "".join([*parts, original[position:]])

    def _mark(self, index: int, length: int) -> str:
        digits = ""
        while True:
            index, digit = divmod(index, 36)
            digits = _DIGITS[digit] + digits
            if not index:
                break
        return self._open + digits + self._close * (length - len(digits) - 1)


def mentions_env(scalar: str) -> bool:
    """Whether text that holds no recognised template still looks as if one was meant."""
    position = 0
    while (opening := _OPENING.search(scalar, position)) is not None:
        end = scalar.find("}}" if opening[0] == "{{" else "%}", opening.end())
        segment = scalar[opening.end() : end if end >= 0 else len(scalar)]
        if "env" in segment and _MENTIONS_ENV.search(_STRING.sub("", segment)):
            return True
        if end < 0:
            return False
        position = end + 2
    return False


def _unused_marks(text: str) -> tuple[str, str]:
    """Two characters that the text does not use; empty when it uses every private one, which no real file does."""
    used = set(text)
    free = [chr(code) for code in _PRIVATE_USE if chr(code) not in used][:2]
    return (free[0], free[1]) if len(free) == 2 else ("", "")
