"""How long do the plugins that search text take for a megabyte of it?

Usage: `python -m benchmarks.guards [--quick]`. Content policy with 1,000 patterns, 1,000 words and the built-in rules;
secrets; injection guard. Each on text that breaks nothing, so that all of it is searched, and beside the baseline that
the figure cannot be below: finding one character with `str.find`. The median of several rounds, in processor time of
the one thread that works, so that a machine that does other work, too, gives the same figures.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cpex.builtins.security.content_rules import DEFAULT_RULES, ContentRule
from cpex.builtins.security.injection_guard import InjectionGuardSettings
from cpex.builtins.security.matching import RuleSet
from cpex.builtins.security.secret_finder import SecretFinder
from cpex.builtins.security.secret_rules import NAMED, OPTIONAL_TYPES, secret_rules
from cpex.builtins.text import Leaf

EVENTS = Path(__file__).parents[1] / "examples" / "layered" / "events.jsonl"
SIZE = 1_000_000
"""Characters that are searched."""
RULES = 1_000
HOOK = "tool_post_invoke"
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Work = Callable[[], object]


def english() -> str:
    """Recorded tool calls, again and again; nothing in them breaks a rule."""
    lines = [json.dumps(json.loads(line)["payload"]) for line in EVENTS.read_text(encoding="utf-8").splitlines()]
    text = "\n".join(lines)
    return (text * (SIZE // len(text) + 1))[:SIZE]


def accented(text: str) -> str:
    """The same with letters beyond ASCII, which is read in two forms."""
    return text.replace("e", "\u00e9")


def word(chance: random.Random) -> str:
    return "".join(chance.choice(LETTERS) for _ in range(chance.randint(6, 10)))


def patterns(chance: random.Random) -> list[str]:
    """Of four kinds: with a fixed beginning, with a class at the beginning, with alternatives, with blanks between."""
    kinds: list[Callable[[], str]] = [
        lambda: rf"\b{word(chance)}-\d{{4,8}}\b",
        lambda: rf"\b[A-Z]{{2}}{chance.randint(10, 99)}-{word(chance)}",
        lambda: rf"(?:{word(chance)}|{word(chance)})\.{word(chance)}",
        lambda: rf"{word(chance)}\s+{word(chance)}\s*[:=]\s*\w+",
    ]
    return [kinds[number % len(kinds)]() for number in range(RULES)]


def rules(chance: random.Random) -> dict[str, list[ContentRule]]:
    """The sets of rules that are measured; of the first two every pattern or word is a rule of its own."""
    return {
        "1,000 rules of a pattern": [
            ContentRule(name=f"r{number}", patterns=[text]) for number, text in enumerate(patterns(chance))
        ],
        "1,000 rules of a word": [ContentRule(name=f"r{number}", words=[word(chance)]) for number in range(RULES)],
        "built-in rules": list(DEFAULT_RULES),
    }


def searching(found: RuleSet, text: str) -> Work:
    """What the content policy does with one string."""

    def search() -> object:
        assert not found.may_be_broken([text], HOOK), "the text must break nothing, or it is not searched to its end"
        return None

    return search


def works(chance: random.Random) -> dict[str, Work]:
    """What is timed, by name."""
    plain, wide = english(), accented(english())
    secrets = secret_rules()
    finder = SecretFinder(secrets, {rule.type for rule in secrets} - OPTIONAL_TYPES | {NAMED})
    scorer = InjectionGuardSettings().scorer()
    timed: dict[str, Work] = {"baseline: str.find": lambda: plain.find("\u0000")}
    for name, listed in rules(chance).items():
        compiled = RuleSet(listed)
        timed[f"content policy, {name}"] = searching(compiled, plain)
        timed[f"content policy, {name}, not ASCII"] = searching(compiled, wide)
    timed["secrets"] = lambda: finder.find(plain)
    timed["injection guard"] = lambda: scorer.judge([Leaf(plain, None, place="result")])
    timed["injection guard, not ASCII"] = lambda: scorer.judge([Leaf(wide, None, place="result")])
    return timed


def milliseconds(work: Work, rounds: int) -> float:
    """The median of several rounds, after one that is thrown away."""
    work()
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken) * 1_000


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guards", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round: a try-out, not a figure")
    rounds = 1 if parser.parse_args(words).quick else 9
    start = time.perf_counter()
    timed = works(random.Random(7))
    print(f"prepared in {time.perf_counter() - start:.2f} s; {SIZE:,} characters each", file=sys.stderr)
    print(f"{'':52}{'ms':>9}{'MB/s':>9}")
    for name, work in timed.items():
        taken_ms = milliseconds(work, rounds)
        print(f"{name:52}{taken_ms:9.1f}{SIZE / 1_000 / max(taken_ms, 1e-6):9.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
