"""How well the findings of a recogniser fit the labels of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.pii.corpus import Label, Sample

__all__ = ["Find", "Score", "score"]

Find = Callable[[str], Iterable[tuple[int, int]]]
"""From a text to the spans of one type."""


@dataclass(frozen=True)
class Score:
    """What was found of one type, and what of the findings was right."""

    type: str
    labels: int
    covered: int
    """Labels that findings cover from end to end: what stays is no longer personal data."""
    findings: int
    right: int
    """Findings that touch a label of the type."""

    @property
    def recall(self) -> float:
        """Share of the labels that were found; 1 when there are none."""
        return self.covered / self.labels if self.labels else 1.0

    @property
    def precision(self) -> float:
        """Share of the findings that are right; 1 when there are none."""
        return self.right / self.findings if self.findings else 1.0


def score(type_: str, corpus: Sequence[Sample], find: Find) -> Score:
    """Hold the findings of one type against the labels of that type."""
    covered = right = labels = findings = 0
    for sample in corpus:
        wanted = [label for label in sample.labels if label.type == type_]
        found = list(find(sample.text))
        labels += len(wanted)
        findings += len(found)
        covered += sum(any(start <= label.start and label.end <= end for start, end in found) for label in wanted)
        right += sum(any(_touch(span, label) for label in wanted) for span in found)
    return Score(type_, labels, covered, findings, right)


def _touch(span: tuple[int, int], label: Label) -> bool:
    return span[0] < label.end and label.start < span[1]
