"""The manifest and the tests agree, both ways."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conformance.manifest import MANIFEST, ROOT, anchors, marks, marks_of, requirements

REQUIREMENTS = requirements()
MARKS = marks()


def test_every_behaviour_has_an_id_of_its_own_and_a_sentence() -> None:
    ids = [each.id for each in REQUIREMENTS]
    assert sorted(set(ids)) == sorted(ids)
    assert [each.id for each in REQUIREMENTS if not re.fullmatch(r"[DEMPSV]\d+[a-z]?(\.[a-z-]+)?", each.id)] == []
    assert [each.id for each in REQUIREMENTS if not each.behaviour.strip()] == []


def test_every_behaviour_that_is_held_has_a_test() -> None:
    held = {each.id for each in REQUIREMENTS if each.status == "held"}
    assert sorted(held - {mark.id for mark in MARKS}) == []


def test_every_mark_names_a_behaviour_of_the_manifest() -> None:
    known = {each.id for each in REQUIREMENTS}
    assert [mark for mark in MARKS if mark.id not in known] == []


def test_a_behaviour_that_is_not_held_yet_says_why_and_has_no_test() -> None:
    waiting = {each.id: each for each in REQUIREMENTS if each.status != "held"}
    assert [each.id for each in waiting.values() if not each.reason] == []
    # A mark on it means that it is held by now: the manifest is what is late.
    assert [mark for mark in MARKS if mark.id in waiting] == []


def test_all_decisions_and_scenarios_are_there() -> None:
    listed = {each.id.partition(".")[0] for each in REQUIREMENTS}
    rows = {f"D{number}" for number in range(1, 34)} | {f"S{number}" for number in range(1, 31)}
    rows |= {f"M{number}" for number in range(1, 22)}
    rows |= {f"P{number}" for number in range(1, 28)}
    rows |= {f"E{number}" for number in range(1, 24)}
    rows |= {f"V{number}" for number in range(1, 23)}
    sub_rows = {"D5a", "D7a", "D7b", "D13a", "D17a", "D17b", "D18a", "D22a"}
    assert listed == rows | sub_rows


def test_every_source_leads_somewhere() -> None:
    lost = []
    for each in REQUIREMENTS:
        page, _, heading = each.source.partition("#")
        if page.startswith("decision "):
            continue
        path = ROOT / page
        if not path.is_file() or (heading and heading not in anchors(path)):
            lost.append((each.id, each.source))
    assert lost == []


def test_a_departure_names_a_decision_of_the_manifest() -> None:
    known = {each.id for each in REQUIREMENTS}
    assert [each.id for each in REQUIREMENTS if each.differs and each.differs not in known] == []


def test_the_manifest_is_in_order() -> None:
    def place(name: str) -> tuple[str, int, str]:
        kind, rest = name[0], name[1:]
        number = re.sub(r"\D.*", "", rest)
        return kind, int(number), rest.removeprefix(number)

    ids = [each.id for each in REQUIREMENTS]
    assert ids == sorted(ids, key=place), MANIFEST


def test_a_mark_that_is_computed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The file that breaks the rule must not stand among the tests that keep it.
    monkeypatch.setattr("conformance.manifest.ROOT", tmp_path)
    path = tmp_path / "test_it.py"
    path.write_text('ID = "D1"\n@pytest.mark.conformance(ID)\ndef test_it(): ...\n')
    with pytest.raises(ValueError, match=r"^test_it.py::test_it: a conformance mark takes ids as literal text"):
        list(marks_of(path))
