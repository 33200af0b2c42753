# The look-alike characters in these texts are what is tested.
# ruff: noqa: RUF001
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.security.content_rules import ContentRule
from cpex.builtins.security.matching import RuleSet
from cpex.builtins.security.normalise import plain, skeleton
from cpex.builtins.text import Leaf

HOOK = "tool_pre_invoke"


def leaf(text: str, *steps: object) -> Leaf:
    trail = (None, "args")
    for step in steps:
        trail = (trail, step)
    return Leaf(text, trail)


def broken(rules: RuleSet, text: str, hook: str = HOOK) -> str | None:
    """The rule that the text breaks; also holds the quick answer against the exact one."""
    rule = rules.first_broken(leaf(text, "q"), hook)
    assert rule is None or rules.may_be_broken([text], hook)
    return rule.name if rule else None


def words(*listed: str) -> RuleSet:
    return RuleSet([ContentRule(name="words", words=list(listed))])


def patterns(*listed: str, case_sensitive: bool = False) -> RuleSet:
    return RuleSet([ContentRule(name="patterns", patterns=list(listed), case_sensitive=case_sensitive)])


@pytest.mark.parametrize(
    "text", ["bluebird", "The BlueBird flies", "(bluebird)", "bluebird's", "top secret", "TOP-secret", "top,\n secret!"]
)
def test_words_and_phrases_are_found_in_any_case_and_punctuation(text: str) -> None:
    assert broken(words("Bluebird", "top secret"), text) == "words"


@pytest.mark.parametrize("text", ["bluebirds", "a_bluebird", "secret top", "top of the secret", ""])
def test_parts_of_words_and_of_phrases_are_let_through(text: str) -> None:
    assert broken(words("bluebird", "top secret"), text) is None


def test_the_longer_of_two_phrases_with_one_beginning_is_found() -> None:
    assert broken(words("top", "top secret plan"), "a top-secret plan") == "words"
    assert broken(words("top secret plan", "top hat"), "top secret hat") is None


def test_words_that_are_no_words_are_found_as_they_stand() -> None:
    rules = words("💣", "机密", "++")
    assert [broken(rules, text) for text in ("a💣b", "这是机密文件", "c++", "c+")] == ["words", "words", "words", None]


@pytest.mark.parametrize(
    "text",
    [
        "ｂｌｕｅｂｉｒｄ",
        "blue\u200bbird",
        "blu\u00adebird",
        "bl\u2060ueb\u202eird",
        "blu\u0435b\u0456rd",
        "b\u0336l\u0336u\u0336e\u0336bird",
        "blüebírd",
        "𝐛𝐥𝐮𝐞𝐛𝐢𝐫𝐝",
    ],
)
def test_disguised_words_are_seen_through(text: str) -> None:
    assert broken(words("bluebird"), text) == "words"
    assert broken(patterns("blueb.rd"), text) == "patterns"
    assert broken(RuleSet([ContentRule(name="w", words=["bluebird"])], normalise=False), text) is None


def test_words_of_other_alphabets_are_found_as_they_are() -> None:
    assert [broken(words("пароль", "Straße"), text) for text in ("Мой ПАРОЛЬ", "STRASSE", "парольный")] == [
        "words",
        "words",
        None,
    ]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"№ ?\d{4}", "see № 1234"),
        ("™", "ACME™"),
        (r"\x{200b}", "blue\u200bbird"),
        ("[\U000e0020-\U000e007e]", "a\U000e0041b"),
        ("…", "so…"),
    ],
)
def test_a_pattern_may_ask_for_what_the_plain_form_has_no_more(pattern: str, text: str) -> None:
    rules = patterns(pattern)
    assert broken(rules, text) == "patterns"
    assert rules.may_be_broken(["x", text], HOOK)


def test_words_are_not_parted_by_what_is_invisible() -> None:
    assert broken(words("blue"), "blue\u200bbird") is None


@pytest.mark.parametrize(
    ("pattern", "beside"),
    [
        (r"\bкот\b", "к"),
        (r"\b(?:кот)", "к"),
        (r"(?i)кот\b", "т"),
        (r"\b[а-я]+", "а"),
        (r"(dog|кот)\b", "т"),
        (r"\bdog\b|\bкот", "к"),
    ],
)
def test_a_word_border_that_can_never_hold_stops_the_start(pattern: str, beside: str) -> None:
    with pytest.raises(ValueError, match="ASCII letters") as raised:
        patterns(pattern)
    assert str(raised.value) == (
        f"pattern `{pattern}` of rule `patterns` has `\\b` beside `{beside}`, where it never holds:"
        " RE2 knows ASCII letters only; list the word under `words`, or write"
        r" `(?:^|\PL)` before and `(?:\PL|$)` after it"
    )


def test_a_word_border_that_may_hold_is_taken() -> None:
    assert broken(patterns(r"\\bкот"), r"c:\bкот") == "patterns"
    assert broken(patterns(r"кот\bdog"), "котdog") == "patterns"
    assert broken(patterns(r"(?:^|\PL)кот(?:\PL|$)"), "мой кот!") == "patterns"
    assert broken(patterns(r"(?:^|\PL)кот(?:\PL|$)"), "котик") is None


def test_patterns_mind_the_case_only_when_asked_to() -> None:
    assert broken(patterns("akia[0-9]"), "AKIA1") == "patterns"
    assert broken(patterns("AKIA[0-9]", case_sensitive=True), "akia1") is None
    assert broken(patterns("AKIA[0-9]", case_sensitive=True), "AKIA1") == "patterns"


def test_the_rule_that_is_listed_first_is_reported() -> None:
    rules = RuleSet(
        [
            ContentRule(name="narrow", patterns=["secret"], fields=["args.other"]),
            ContentRule(name="cased", patterns=["SECRET"], case_sensitive=True),
            ContentRule(name="wide", words=["secret"]),
            ContentRule(name="here", patterns=["secret"], fields=["args.q"]),
        ]
    )
    assert broken(rules, "secret") == "wide"
    assert broken(rules, "SECRET") == "cased"
    found = rules.first_broken(leaf("secret", "other"), HOOK)
    assert found is not None
    assert found.name == "narrow"


def test_a_rule_applies_to_its_hooks_only() -> None:
    rules = RuleSet([ContentRule(name="r", words=["x"], hooks=["tool_post_invoke"])])
    assert broken(rules, "x") is None
    assert broken(rules, "x", "tool_post_invoke") == "r"


def test_a_rule_applies_to_its_fields_only_and_brackets_mean_themselves() -> None:
    rules = RuleSet([ContentRule(name="r", words=["x"], fields=["args.list[0]*", "args.deep.*"])])
    assert rules.first_broken(leaf("x", "list", 0, "a"), HOOK)
    assert rules.first_broken(leaf("x", "deep", "er"), HOOK)
    assert not rules.first_broken(leaf("x", "list", 1), HOOK)
    assert not rules.first_broken(leaf("x", "list0"), HOOK)


def test_every_pattern_that_cannot_be_run_is_reported_with_its_rule_and_the_reason() -> None:
    rule = ContentRule(name="mine", patterns=["(?=x)", r"(a)\1", "(", r"\Qopen", "x*", r"\pL{900}", "fine"])
    with pytest.raises(ValueError, match="mine") as raised:
        RuleSet([rule])
    syntax = "look-around and back-references have no linear-time form, write the pattern without them"
    assert str(raised.value).split("; pattern ") == [
        f"pattern `(?=x)` of rule `mine` is not RE2 syntax (invalid perl operator: (?=); {syntax}",
        f"`(a)\\1` of rule `mine` is not RE2 syntax (invalid escape sequence: \\1); {syntax}",
        f"`(` of rule `mine` is not RE2 syntax (missing ): (); {syntax}",
        f"`\\Qopen` of rule `mine` is not RE2 syntax (missing ): (?:\\Qopen)); {syntax}",
        "`x*` of rule `mine` matches everything, also nothing at all; ask for at least one character",
        "`\\pL{900}` of rule `mine` is too large; repeat smaller classes, or fewer times",
    ]


def test_patterns_with_equal_group_names_and_anchors_live_side_by_side() -> None:
    rules = patterns(r"^(?P<x>start)", r"(?P<x>end)$", r"\Awhole\z")
    assert [broken(rules, text) for text in ("start of", "the end", "whole", "no start, no end.", "a whole")] == [
        "patterns",
        "patterns",
        "patterns",
        None,
        None,
    ]


def test_an_input_that_stalls_a_backtracking_engine_is_answered() -> None:
    assert broken(patterns("(a+)+$", "(x|xx|xxx)*y"), "a" * 200_000 + "!" + "x" * 200_000) is None


def test_more_rules_than_one_automaton_holds_all_apply() -> None:
    rules = RuleSet([ContentRule(name=f"r{n}", patterns=[f"item-{n}-[a-z]+"]) for n in range(300)])
    assert [broken(rules, f"item-{n}-x") for n in (0, 49, 50, 299, 300)] == ["r0", "r49", "r50", "r299", None]


@settings(max_examples=150)
@given(texts=st.lists(st.text("ab\n\u0430é ", max_size=6), max_size=4))
def test_the_quick_answer_never_hides_a_broken_rule(texts: list[str]) -> None:
    rules = RuleSet(
        [
            ContentRule(name="p", patterns=["^ab$", r"\bb\b", "a.b", r"a\Bb"]),
            ContentRule(name="w", words=["a b", "é"]),
        ]
    )
    if any(rules.first_broken(leaf(text), HOOK) for text in texts):
        assert rules.may_be_broken(texts, HOOK)


@settings(max_examples=100)
@given(text=st.text())
def test_any_text_can_be_searched_and_normalising_twice_changes_nothing_more(text: str) -> None:
    broken(patterns("never-there"), text)
    assert plain(plain(plain(text))) == plain(plain(text))
    assert skeleton(text.encode("ascii", "ignore").decode()) == text.encode("ascii", "ignore").decode()
