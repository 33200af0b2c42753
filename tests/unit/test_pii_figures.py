"""The benchmark of finding personal data: its corpus, its arithmetic, and floors that a seeded sample must keep."""

from __future__ import annotations

import pytest

from benchmarks.pii.__main__ import report
from benchmarks.pii.corpus import LABELS, Label, Sample, documents, records
from benchmarks.pii.engines import ours
from benchmarks.pii.score import Score, score

SEED = 77
FLOORS = {
    "card": (1.0, 0.88),
    "email": (1.0, 1.0),
    "phone": (1.0, 0.45),
    "ssn": (1.0, 1.0),
    "iban": (1.0, 1.0),
    "ip": (1.0, 1.0),
}
"""Recall and precision. Cards and phones: among decoys, one number in ten passes the check digit of a card, and four of
ten with ten digits are phone numbers of some of eight countries."""


@pytest.fixture(scope="module")
def corpus() -> list[Sample]:
    return documents(SEED, 250) + records(SEED, 150)


def test_labels_stand_where_the_values_are(corpus: list[Sample]) -> None:
    for sample in corpus:
        for start, end, type_ in sample.labels:
            value = sample.text[start:end]
            assert value == value.strip()
            assert {"email": "@", "ip": "."}.get(type_, "") in value or ":" in value
    assert {label.type for sample in corpus for label in sample.labels} == set(LABELS)


def test_equal_seeds_invent_equal_texts() -> None:
    assert [sample.text for sample in records(3, 5)] == [sample.text for sample in records(3, 5)]
    assert records(3, 5) != records(4, 5)


@pytest.mark.parametrize("type_", LABELS)
def test_a_type_alone_is_found_as_well_as_the_floors_say(type_: str, corpus: list[Sample]) -> None:
    found = score(type_, corpus, ours(type_))
    recall, precision = FLOORS[type_]
    assert found.labels >= 50
    assert found.recall >= recall, found
    assert found.precision >= precision, found


def test_findings_are_held_against_labels() -> None:
    sample = Sample("0123456789", (Label(0, 4, "ip"), Label(6, 9, "ip"), Label(4, 6, "card")))
    found = score("ip", [sample], lambda text: [(0, 5), (6, 8), (9, 10)])
    assert found == Score("ip", labels=2, covered=1, findings=3, right=2)
    assert (found.recall, found.precision) == (0.5, 2 / 3)
    nothing = score("ssn", [sample], lambda text: [])
    assert (nothing.recall, nothing.precision) == (1.0, 1.0)


def test_the_tables_have_a_line_for_each_type_and_each_cut() -> None:
    side = {"labels": 1200, "recall": 0.99961, "precision": 1.0}
    speed = {"ours": 30.123, "presidio": 1.234, "times": 24.4}
    corpus = {
        "texts": 2,
        "characters": 301,
        "labels_per_1000_characters": 2.44,
        "types": {"ip": {"ours": side, "presidio": {**side, "recall": 0.5}}},
        "speed": dict.fromkeys(("texts", "long", "phone"), speed),
    }
    assert list(report({"corpora": {"mails": corpus}, "hostile": {"US GB": 5.68}})) == [
        "| text | type | labels | recall | presidio | precision | presidio |",
        "|---|---|---:|---:|---:|---:|---:|",
        "| mails | `ip` | 1,200 | 1.000 | 0.500 | 1.000 | 1.000 |",
        "",
        "| text | labels per 1,000 characters | cut into | MB/s | presidio | times |",
        "|---|---:|---|---:|---:|---:|",
        "| mails | 2.4 | texts of 150 characters | 30.1 | 1.23 | 24.4 |",
        "| mails | 2.4 | 16 kB | 30.1 | 1.23 | 24.4 |",
        "| mails | 2.4 | texts of 150 characters, phone alone | 30.1 | 1.23 | 24.4 |",
        "",
        "| phone regions | seconds for a megabyte of digits made to be slow |",
        "|---|---:|",
        "| US GB | 5.7 |",
    ]
