"""Runs both sides over the same text in one process, and writes what it found as one JSON document.

Usage: `python -m benchmarks.pii.compare SEED COUNT ROUNDS`, in the environment that has `presidio-analyzer`;
`python -m benchmarks.pii` starts it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from statistics import median
from typing import Any

from benchmarks.pii.corpus import LABELS, PHONE_REGIONS, Sample, documents, records
from benchmarks.pii.engines import Search, our_search, ours, presidio, presidio_search, presidio_sentences
from benchmarks.pii.score import Find, score

CORPORA: dict[str, Callable[[int, int], list[Sample]]] = {
    "presidio-evaluator": presidio_sentences,
    "documents": documents,
    "records": records,
}
HOSTILE = ("27 36 ", "49 30 ", "4151 ", "1  ", "030 901820 ", "212-555-0100 ")
"""What texts are made of that take long to search for phone numbers."""
PATTERNED = tuple(type_ for type_ in LABELS if type_ != "phone")


def main(seed: int, count: int, rounds: int) -> dict[str, Any]:
    """Everything that was measured, by corpus."""
    theirs = {type_: presidio(type_) for type_ in LABELS}
    return {
        "versions": {name: version(name) for name in ("presidio-analyzer", "Faker", "phonenumbers")},
        "seed": seed,
        "rounds": rounds,
        "corpora": {name: _measure(make(seed, count), theirs, rounds) for name, make in CORPORA.items()},
        "hostile": {" ".join(regions): _slowest(regions, rounds) for regions in (("US",), PHONE_REGIONS)},
    }


def _slowest(regions: Sequence[str], rounds: int, size: int = 100_000) -> float:
    """Seconds that we take for a megabyte of phone-like digits at worst."""
    search = our_search("phone", regions=regions)
    texts = [(part * size)[:size] for part in HOSTILE]
    return max(median(_seconds([text], [search]) for _ in range(rounds)) for text in texts) * 1e6 / size


def _measure(corpus: list[Sample], theirs: dict[str, Find], rounds: int) -> dict[str, Any]:
    texts = [sample.text for sample in corpus]
    size = sum(map(len, texts))
    return {
        "texts": len(texts),
        "characters": size,
        "labels_per_1000_characters": 1000 * sum(len(sample.labels) for sample in corpus) / size,
        "types": {type_: _quality(type_, corpus, theirs[type_]) for type_ in LABELS},
        "speed": _speeds(texts, rounds),
    }


def _speeds(texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Of short texts and long ones for all types but phone, and of short ones for phone."""
    mine = our_search(*PATTERNED)
    theirs = [presidio_search(type_) for type_ in PATTERNED]
    return {
        "texts": _speed(texts, mine, theirs, rounds),
        "long": _speed(_joined(texts), mine, theirs, rounds),
        "phone": _speed(texts, our_search("phone"), [presidio_search("phone")], max(2, rounds // 3)),
    }


def _quality(type_: str, corpus: list[Sample], theirs: Find) -> dict[str, Any]:
    """Recall and precision of one type on both sides, each side looking for that type alone."""
    sides = {"ours": score(type_, corpus, ours(type_)), "presidio": score(type_, corpus, theirs)}
    return {
        side: {**asdict(found), "recall": found.recall, "precision": found.precision} for side, found in sides.items()
    }


def _joined(texts: Sequence[str], size: int = 16_384) -> list[str]:
    """The same text in documents of some thousand characters."""
    whole = "\n".join(texts)
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def _speed(texts: Sequence[str], ours: Search, theirs: Sequence[Search], rounds: int) -> dict[str, Any]:
    """Megabytes a second on both sides, which take turns; theirs is the sum over its recognisers."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    # Once unrecorded: what either side compiles or remembers on first use.
    _seconds(texts, [ours, *theirs])
    both: list[tuple[float, float]] = []
    for _ in range(rounds):
        gc.collect()
        both.append((size / _seconds(texts, [ours]), size / _seconds(texts, theirs)))
    return {
        "ours": median(mine for mine, _ in both),
        "presidio": median(other for _, other in both),
        "times": median(mine / other for mine, other in both),
        "rounds": both,
    }


def _seconds(texts: Sequence[str], finders: Sequence[Search]) -> float:
    # Of this process alone: both sides compute and wait for nothing, and neighbours on the machine do not count.
    begun = time.process_time()
    for find in finders:
        for text in texts:
            find(text)
    return time.process_time() - begun


if __name__ == "__main__":
    json.dump(main(*map(int, sys.argv[1:4])), sys.stdout, indent=1)
