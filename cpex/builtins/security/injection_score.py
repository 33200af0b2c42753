"""How much a text looks as if it wanted to give a model instructions: signals, where they are, and a score.

A long text is judged by its worst window, so that harmless signals far apart do not add up, and a text in many small
pieces like one in one piece.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from cpex.builtins.security.hidden_text import hidden_in, invisible_signals
from cpex.builtins.security.injection_patterns import InjectionPattern
from cpex.builtins.security.normalise import plain, skeleton
from cpex.builtins.security.pattern_set import PatternSet, compile_linear
from cpex.builtins.text import Leaf

__all__ = ["InjectionScorer", "Signal", "Verdict"]

_WINDOW = 4_000
"""Bytes that are judged together."""
_STRIDE = 3_000
"""Windows overlap by the difference, so that nothing short falls between two."""
_JOINT = "\n"


class Signal(NamedTuple):
    """One thing that was found."""

    name: str
    path: str
    """Where, as `result.body`."""


class Verdict(NamedTuple):
    """What a text comes to."""

    score: float
    """0 to 1, to two digits."""
    signals: list[Signal]
    """Those of the worst window, by name."""


class _Hit(NamedTuple):
    name: str
    place: int
    """In bytes of the joined texts in UTF-8."""


class InjectionScorer:
    """Finds signals and weighs them. Immutable; may be shared between tasks."""

    def __init__(self, patterns: Sequence[InjectionPattern], weights: Mapping[str, float]) -> None:
        """Compile the patterns; signals that weigh nothing are not looked for.

        Raises:
            re2.error: A pattern is not in RE2 syntax.
        """
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._patterns = [each for each in patterns if each.signal in self._weights]
        self._set = PatternSet(each.pattern for each in self._patterns)
        self._single = [compile_linear(each.pattern) for each in self._patterns]

    def judge(self, leaves: Iterable[Leaf]) -> Verdict:
        """Score texts that are read one after the other."""
        texts = list(leaves)
        starts, at = [], 0
        for leaf in texts:
            starts.append(at)
            at += len(leaf.text.encode(errors="replace")) + len(_JOINT)
        joined = _JOINT.join(leaf.text for leaf in texts)
        worst = self._worst(sorted(self._hits(joined), key=lambda hit: hit.place))
        first: dict[str, int] = {}
        for hit in worst:
            first.setdefault(hit.name, hit.place)
        signals = [Signal(name, texts[bisect_right(starts, place) - 1].path) for name, place in sorted(first.items())]
        return Verdict(self._score(first), signals)

    def _hits(self, text: str) -> Iterator[_Hit]:
        yield from self._spelt(text)
        for name, place in invisible_signals(text).items():
            if name in self._weights:
                yield _Hit(name, place)
        for hidden in hidden_in(text):
            inside = {hit.name for hit in self._spelt(hidden.text)}
            name = "encoded_instruction" if hidden.is_encoded else "hidden_instruction"
            if inside and name in self._weights:
                yield from (_Hit(each, hidden.start) for each in (*inside, name))

    def _spelt(self, text: str) -> Iterator[_Hit]:
        """Signals of patterns, each pattern at its first place in every window."""
        for shown in _readings(text):
            data = shown.encode(errors="replace")
            for number in self._set.found_in(data):
                last = -_STRIDE
                for match in self._single[number].finditer(data):
                    # What was read may be a little shorter or longer than what was given, when something invisible was
                    # taken out or a wide letter put in; that can name a neighbouring path, and changes no score.
                    place = match.start()
                    if place - last >= _STRIDE // 2:
                        yield _Hit(self._patterns[number].signal, place)
                        last = place

    def _worst(self, hits: Sequence[_Hit]) -> list[_Hit]:
        """The hits of the window with the highest score; windows begin at hits."""
        best: list[_Hit] = []
        best_score, end = -1.0, 0
        previous_end = -1
        for start, hit in enumerate(hits):
            while end < len(hits) and hits[end].place - hit.place < _WINDOW:
                end += 1
            if end == previous_end:
                # A part of the window before.
                continue
            previous_end = end
            score = self._score({each.name for each in hits[start:end]})
            if score > best_score:
                best, best_score = list(hits[start:end]), score
        return best

    def _score(self, names: Iterable[str]) -> float:
        return round(1 - prod(1 - self._weights[name] for name in set(names)), 2)


def _readings(text: str) -> Iterator[str]:
    """The text as patterns read it: in small letters, and once more with look-alikes made Latin."""
    simple = plain(text)
    yield simple.lower()
    if not simple.isascii() and (bare := skeleton(simple)) is not simple:
        yield bare.lower()
