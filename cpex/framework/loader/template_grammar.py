"""What a template of the environment means: its grammar, as a function of the variables.

Where STRING, NUMBER, `true`, `false` and `none` are literals:

    template := "{{" env filter* "}}"
    env      := "env." NAME | "env[" STRING "]" | "env.get(" STRING ["," value] ")"
    value    := (env | literal | "(" value ")") filter*
    filter   := "|" ("default" "(" value ["," value] ")" | "int" | "float" | "bool" | "lower" | "upper")

This module knows nothing of the text around a template.

Source: docs/reference/config-errors.md, "Templates".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["SUPPORTED", "Evaluate", "Parsed", "TemplateError", "UndefinedVariable", "Unset", "as_text", "parse"]

MAX_NESTING = 20
"""How deep defaults and parentheses may nest in one template."""
_MAX_TOKENS = 400
MAX_LENGTH = 2000
"""Characters of one template."""

_TOKEN = re.compile(
    r"""[ \t]*(?:
        (?P<end>\}\})
      | (?P<string>"(?:[^"\\\n]|\\[^\n])*" | '(?:[^'\\\n]|\\[^\n])*')
      | (?P<number>-?\d+(?:\.\d+)?(?![A-Za-z0-9_]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<mark>[.\[\](),|])
    )""",
    re.VERBOSE,
)
_LITERALS: dict[str, bool | None] = {
    "true": True, "True": True, "false": False, "False": False, "none": None, "None": None,
}  # fmt: skip
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_TRUE_WORDS = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE_WORDS = frozenset({"0", "false", "no", "off", "n", "f", ""})

SUPPORTED = (
    'write `{{ env.NAME }}`, `{{ env["NAME"] }}` or `{{ env.get("NAME", "default") }}` on one line, '
    "with the filters default, int, float, bool, lower, upper"
)
"""Help text for a template that is not understood."""


class TemplateError(ValueError):
    """A template cannot be understood, or its variable does not hold what a filter needs. Never quotes a value."""


class UndefinedVariable(TemplateError):
    """A variable is not set and the template has no default.

    Attributes:
        name: The variable.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"environment variable `{name}` is not set and has no default")
        self.name = name


@dataclass(frozen=True, slots=True)
class Unset:
    """What an unset variable evaluates to, until a default takes its place."""

    name: str


Evaluate = Callable[[Mapping[str, str]], Any]


class Parsed(NamedTuple):
    """One template as read from the text."""

    end: int | None
    """Where it ends; `None` when that is not on its line."""
    evaluate: Evaluate | None
    """How to work it out; `None` when it is not understood."""
    problem: str = ""
    """Why it is not understood."""


def parse(text: str, position: int) -> Parsed:
    """Read a template from behind its `env`."""
    tokens: list[tuple[str, str]] = [("name", "env")]
    at, limit = position, position + MAX_LENGTH
    while (match := _TOKEN.match(text, at, limit)) is not None:
        at = match.end()
        kind = match.lastgroup or ""
        if kind == "end":
            try:
                return Parsed(at, _Parser(tokens).template())
            except TemplateError as error:
                return Parsed(at, None, str(error))
        tokens.append((kind, match[kind]))
    line_end = text.find("\n", position, limit)
    closing = text.find("}}", position, line_end if line_end >= 0 else limit)
    return Parsed(None, None) if closing < 0 else Parsed(closing + 2, None, "it is not understood")


def as_text(value: Any) -> str:
    """A value as it stands in the middle of other text."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Parser:
    """Recursive descent over the tokens of one template; builds a function of the environment."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def template(self) -> Evaluate:
        if len(self._tokens) > _MAX_TOKENS:
            raise TemplateError(f"the template has more than {_MAX_TOKENS} words and marks")
        evaluate = self._filters(self._env())
        if self._at < len(self._tokens):
            raise TemplateError(f"the template is not understood from `{self._tokens[self._at][1]}` on")
        return evaluate

    def _value(self) -> Evaluate:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise TemplateError(f"the template nests deeper than {MAX_NESTING} levels")
        evaluate = self._filters(self._primary())
        self._depth -= 1
        return evaluate

    def _primary(self) -> Evaluate:
        if self._peek() == ("name", "env"):
            return self._env()
        if self._accept("("):
            inner = self._value()
            self._expect(")")
            return inner
        kind, word = self._next()
        if kind == "string":
            return _constant(_unquote(word))
        if kind == "number":
            return _constant(float(word) if "." in word else _to_int(word, "a default"))
        if word in _LITERALS:
            return _constant(_LITERALS[word])
        raise TemplateError(f"a value is expected in place of `{word}`")

    def _env(self) -> Evaluate:
        self._expect("env")
        if self._accept("["):
            name = self._string()
            self._expect("]")
            return _variable(name)
        self._expect(".")
        kind, name = self._next()
        if kind != "name":
            raise TemplateError(f"a variable name is expected in place of `{name}`")
        if name != "get" or self._peek() != ("mark", "("):
            return _variable(name)
        self._expect("(")
        name = self._string()
        default = self._value() if self._accept(",") else None
        self._expect(")")
        return _variable(name) if default is None else _with_default(_variable(name), default)

    def _filters(self, evaluate: Evaluate) -> Evaluate:
        while self._accept("|"):
            _, name = self._next()
            arguments: list[Evaluate] = []
            if self._accept("("):
                while not self._accept(")"):
                    if arguments:
                        self._expect(",")
                    arguments.append(self._value())
            evaluate = _filtered(evaluate, name, arguments)
        return evaluate

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "}}")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, word: str) -> bool:
        if self._peek()[1] == word and self._peek()[0] != "string":
            self._at += 1
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise TemplateError(f"`{word}` is expected in place of `{self._peek()[1]}`")

    def _string(self) -> str:
        kind, word = self._next()
        if kind != "string":
            raise TemplateError(f"a variable name in quotes is expected in place of `{word}`")
        return _unquote(word)


def _unquote(word: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), word[1:-1])


def _constant(value: Any) -> Evaluate:
    return lambda env: value


def _variable(name: str) -> Evaluate:
    def evaluate(env: Mapping[str, str]) -> Any:
        value = env.get(name)
        if value is None:
            return Unset(name)
        if not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
            raise TemplateError(f"environment variable `{name}` does not hold valid UTF-8")
        return value

    return evaluate


def _with_default(first: Evaluate, default: Evaluate, also_when: Evaluate | None = None) -> Evaluate:
    def evaluate(env: Mapping[str, str]) -> Any:
        value = first(env)
        absent = isinstance(value, Unset) or (also_when is not None and also_when(env) and not value)
        return default(env) if absent else value

    return evaluate


def _filtered(evaluate: Evaluate, name: str, arguments: list[Evaluate]) -> Evaluate:
    if name == "default" and len(arguments) in (1, 2):
        return _with_default(evaluate, *arguments)
    convert = _CONVERSIONS.get(name)
    if convert is None:
        known = ", ".join(["default", *_CONVERSIONS])
        raise TemplateError(f"filter `{name}` is not supported; supported: {known}")
    if arguments:
        raise TemplateError(f"filter `{name}` takes no argument")

    def converted(env: Mapping[str, str]) -> Any:
        value = evaluate(env)
        return value if isinstance(value, Unset) else convert(value, "the value")

    return converted


def _to_int(value: Any, what: str) -> int:
    try:
        return int(value)
    except (ValueError, TypeError, OverflowError):
        # The cause would quote the value.
        raise TemplateError(f"{what} of the template is not a whole number") from None


def _to_float(value: Any, what: str) -> float:
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        # The cause would quote the value.
        raise TemplateError(f"{what} of the template is not a number") from None


def _to_bool(value: Any, what: str) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise TemplateError(f"{what} of the template is neither true nor false")


_CONVERSIONS: dict[str, Callable[[Any, str], Any]] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "lower": lambda value, what: as_text(value).lower(),
    "upper": lambda value, what: as_text(value).upper(),
}
