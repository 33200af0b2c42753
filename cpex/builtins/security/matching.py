"""Tells which of many rules a text breaks, in time that grows linearly with the text.

Words are looked up token by token. Patterns run on RE2, which never backtracks; they are joined into one automaton, or
a few, and only a text that one of these has matched is shown to single rules. What a rule means is the business of
`content_rules`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from fnmatch import translate
from typing import Any

from cpex.builtins.content import GUARDED_HOOKS
from cpex.builtins.security.content_rules import ContentRule
from cpex.builtins.security.normalise import plain, skeleton
from cpex.builtins.security.pattern_set import PatternSet, idle_border
from cpex.builtins.text import Leaf

__all__ = ["RuleSet"]

_TOKEN = re.compile(r"\w+")
# Texts are joined by line ends, and `^` and `$` then stand for those too. So joined texts match wherever one of them
# does, unless a pattern asks for the ends of the text in a way that the line ends do not meet.
_JOINT = "\n"
_ANCHOR = re.compile(r"\\[Az]|\(\?[a-zA-Z]*-")
_MAX_PROGRAM = 20_000
"""Instructions of one pattern; with the text's length it bounds the time that a scan can take."""
_MAX_MEMORY = 32 << 20
"""Bytes that one pattern may take."""
_MAX_JOINED = 50_000
"""Instructions of the patterns that are joined; much more would leave an automaton memory for few states."""


class RuleSet:
    """Compiled rules. Immutable; may be shared between tasks."""

    def __init__(self, rules: Sequence[ContentRule], *, normalise: bool = True) -> None:
        """Compile `rules`; earlier ones are reported first.

        Raises:
            ValueError: Patterns that RE2 does not take, all of them, each with its rule and the reason.
        """
        self._normalise = normalise
        faults: list[str] = []
        compiled = [_CompiledRule(rule, normalise, faults) for rule in rules]
        if faults:
            raise ValueError("; ".join(faults))
        # Most hooks have the same rules, and share what is compiled for them.
        shared: dict[tuple[str, ...], _HookRules] = {}
        self._by_hook: dict[str, _HookRules] = {}
        for hook in GUARDED_HOOKS:
            here = [rule for rule in compiled if not rule.rule.hooks or hook in rule.rule.hooks]
            names = tuple(rule.rule.name for rule in here)
            self._by_hook[hook] = shared.get(names) or shared.setdefault(names, _HookRules(here))

    def may_be_broken(self, texts: Iterable[str], hook: str) -> bool:
        """Whether it is worth looking at these texts one by one; false means that none of them breaks a rule."""
        forms = self._forms(_JOINT.join(texts))
        return any(self._by_hook[hook].may_be_broken(form) for form in forms)

    def first_broken(self, leaf: Leaf, hook: str) -> ContentRule | None:
        """The first rule that the text of `leaf` breaks on `hook`."""
        return self._by_hook[hook].first_broken(leaf, self._forms(leaf.text))

    def _forms(self, text: str) -> list[_Form]:
        if not self._normalise or text.isascii():
            return [_Form(text)]
        simple = plain(text)
        bare = skeleton(simple)
        forms = [_Form(simple)] if bare is simple else [_Form(simple), _Form(bare)]
        # Patterns may ask for what the plain form has no more, such as `№` or invisible characters; words are plain.
        return forms if simple == text else [*forms, _Form(text, is_raw=True)]


class _HookRules:
    """The rules of one hook: first asked all at once, grouped by the places they apply to."""

    def __init__(self, rules: Sequence[_CompiledRule]) -> None:
        self._rules = rules
        groups: dict[tuple[str, ...], list[_CompiledRule]] = {}
        for rule in rules:
            groups.setdefault(tuple(rule.rule.fields), []).append(rule)
        self._groups = [_Group(group) for group in groups.values()]
        self._words = _Words(phrase for rule in rules for phrase in rule.phrases)
        self._automata = _automata(rules, prefix="(?m)")
        self._joinable = not any(_ANCHOR.search(pattern) for rule in rules for pattern in rule.patterns)

    def may_be_broken(self, form: _Form) -> bool:
        """False only when no text that was joined into `form` breaks a rule, wherever it stands."""
        if not self._joinable:
            return True
        return any(automaton.finds_any(form.encoded) for automaton in self._automata) or self._words.match(form)

    def first_broken(self, leaf: Leaf, forms: Sequence[_Form]) -> ContentRule | None:
        """The first rule that any form of the text breaks."""
        for group in self._groups:
            if group.applies(leaf) and any(group.matches(form) for form in forms):
                # This group has one; which comes first takes all the rules that apply here.
                applying = (rule for rule in self._rules if rule.applies(leaf))
                return next((rule.rule for rule in applying if any(rule.matches(form) for form in forms)), None)
        return None


class _Form:
    """One way to read a text; what is derived from it is derived once."""

    def __init__(self, text: str, *, is_raw: bool = False) -> None:
        self._text = text
        # RE2 reads UTF-8; a lone surrogate has none, and becomes a character that no pattern asks for.
        self.encoded = text.encode(errors="replace")
        self._tokens: list[str] | None = [] if is_raw else None

    @property
    def tokens(self) -> list[str]:
        if self._tokens is None:
            self._tokens = _TOKEN.findall(self._text.casefold())
        return self._tokens


class _Words:
    """Words and phrases of any number of rules, as tuples of tokens."""

    def __init__(self, phrases: Iterable[tuple[str, ...]]) -> None:
        self._phrases = frozenset(phrases)
        lengths: dict[str, set[int]] = {}
        for phrase in self._phrases:
            lengths.setdefault(phrase[0], set()).add(len(phrase))
        self._lengths = {first: sorted(sizes) for first, sizes in lengths.items()}

    def match(self, form: _Form) -> bool:
        """Whether any of them occurs."""
        if not self._phrases:
            return False
        tokens = form.tokens
        if self._lengths.keys().isdisjoint(tokens):
            return False
        return any(
            tuple(tokens[place : place + size]) in self._phrases
            for place, token in enumerate(tokens)
            for size in self._lengths.get(token, ())
        )


class _CompiledRule:
    """One rule by itself: what says for certain that it is broken."""

    def __init__(self, rule: ContentRule, normalise: bool, faults: list[str]) -> None:
        self.rule = rule
        words = [(plain(word) if normalise else word).casefold().strip() for word in rule.words]
        self.phrases = [tuple(_TOKEN.findall(word)) for word in words if not _is_literal(word)]
        literals = [_escaped(word) for word in words if _is_literal(word) and word]
        checked = [_checked(pattern, rule, faults) for pattern in rule.patterns]
        self.patterns = [*checked, *(f"(?i:{literal})" for literal in literals)]
        self._fields = [_place(glob) for glob in rule.fields]
        self._words = _Words(self.phrases)
        self._automata = [] if faults else _joined(self.patterns, rule.case_sensitive)

    def applies(self, leaf: Leaf) -> bool:
        """Whether the rule has a say at this place."""
        return not self._fields or any(field.match(leaf.path) for field in self._fields)

    def matches(self, form: _Form) -> bool:
        """Whether this form of the text breaks the rule."""
        return self._words.match(form) or any(automaton.finds_any(form.encoded) for automaton in self._automata)


class _Group:
    """Rules that apply at the same places, joined: says whether any of them is broken."""

    def __init__(self, rules: Sequence[_CompiledRule]) -> None:
        self.applies = rules[0].applies
        self._words = _Words(phrase for rule in rules for phrase in rule.phrases)
        self._automata = _automata(rules)

    def matches(self, form: _Form) -> bool:
        """Whether this form of the text breaks any of the rules."""
        return any(automaton.finds_any(form.encoded) for automaton in self._automata) or self._words.match(form)


def _automata(rules: Iterable[_CompiledRule], prefix: str = "") -> list[PatternSet]:
    """The patterns of all rules, joined: those that mind the case apart from those that do not."""
    patterns: dict[bool, list[str]] = {False: [], True: []}
    for rule in rules:
        patterns[rule.rule.case_sensitive] += [prefix + pattern for pattern in rule.patterns]
    return _joined(patterns[False], False) + _joined(patterns[True], True)


def _place(glob: str) -> re.Pattern[str]:
    """A test of paths. `[` stands for itself, since paths have indices in brackets."""
    return re.compile(translate(glob.replace("[", "[[]")))


def _is_literal(word: str) -> bool:
    """Whether a word cannot be found as a token: it has no letters, or is of a script without blanks between words."""
    return not _TOKEN.search(word) or any(unicodedata.category(char) == "Lo" for char in word)


def _checked(pattern: str, rule: ContentRule, faults: list[str]) -> str:
    """The pattern, put so that it can be joined with others; notes it among the faults when RE2 does not take it."""
    import re2

    where = f"pattern `{pattern}` of rule `{rule.name}`"
    joinable = f"(?:{pattern})"
    try:
        # Both forms: quoting that is left open, or a stray bracket, shows in one of them only.
        compiled, _ = (re2.compile(text, _options(rule.case_sensitive)) for text in (pattern, joinable))
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        faults.append(
            f"{where} is not RE2 syntax ({reason}); look-around and back-references have no linear-time form,"
            " write the pattern without them"
        )
        return joinable
    if compiled.programsize > _MAX_PROGRAM:
        faults.append(f"{where} is too large; repeat smaller classes, or fewer times")
    if letter := idle_border(pattern):
        faults.append(
            f"{where} has `\\b` beside `{letter}`, where it never holds: RE2 knows ASCII letters only;"
            r" list the word under `words`, or write `(?:^|\PL)` before and `(?:\PL|$)` after it"
        )
    if compiled.search(b""):
        faults.append(f"{where} matches everything, also nothing at all; ask for at least one character")
    return joinable


def _escaped(word: str) -> str:
    import re2

    return str(re2.escape(word))


def _joined(patterns: Sequence[str], case_sensitive: bool) -> list[PatternSet]:
    """Automata that together match where any pattern does."""
    if not patterns:
        return []
    # The engine is a compiled library of its own; it is loaded by those who have patterns.
    import re2

    options = _options(case_sensitive)
    groups: list[list[str]] = [[]]
    size = 0
    for pattern in patterns:
        program = re2.compile(pattern, options).programsize
        if groups[-1] and size + program > _MAX_JOINED:
            groups.append([])
            size = 0
        groups[-1].append(pattern)
        size += program
    return [PatternSet(group, case_sensitive=case_sensitive) for group in groups]


def _options(case_sensitive: bool) -> Any:
    import re2

    options = re2.Options()
    options.case_sensitive = case_sensitive
    # Groups serve no purpose here, and equal names in two patterns would keep them from being joined.
    options.never_capture = True
    # RE2 would write its own complaints to standard error.
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    return options
