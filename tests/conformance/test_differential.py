"""This framework and the published package do the same, but for the listed departures."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance.differential import compare
from conformance.differential.catalogue import HOOKS
from conformance.differential.departures import CHAPTERS
from conformance.differential.page import COMMAND, PAGE, compared, text
from conformance.differential.run import Mismatch, run

from benchmarks.sides import SideError, rival_python
from cpex.framework import get_hook_registry

EXAMPLES = 400

# The first run installs the published package.
installs = pytest.mark.timeout(900)


@pytest.fixture
def rival() -> Path:
    """An interpreter that has the published package."""
    try:
        return rival_python()
    except SideError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


@installs
def test_generated_scenarios_end_alike_in_both_packages(rival: Path) -> None:
    tally = run(rival, EXAMPLES)
    assert tally.scenarios >= EXAMPLES
    # A run in which a departure never shows says nothing about it.
    assert compared() <= tally.departures.keys()


@installs
@pytest.mark.parametrize("decision", ["D7b", "D12", "D24", "D29"])
def test_a_departure_that_is_not_listed_is_found(rival: Path, decision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((compare, "REWRITES"), (compare, "EXPECTATIONS")):
        kept = tuple(each for each in getattr(module, name) if each[0] != decision)
        # As if nobody had listed it.
        monkeypatch.setattr(module, name, kept)
    with pytest.raises(Mismatch):
        run(rival, EXAMPLES, reduce=False)


def test_every_departure_that_is_acted_out_stands_on_the_page() -> None:
    listed = [row.decision for _, rows in CHAPTERS for row in rows]
    assert compared() <= set(listed)
    assert len(listed) == len(set(listed))


def test_the_page_of_differences_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == text(), f"run `{COMMAND}`"


def test_scenarios_call_every_family_of_hooks() -> None:
    families = {hook.split("_")[0] for hook in get_hook_registry().get_registered_hooks()}
    assert {hook.split("_")[0] for hook in HOOKS} >= {family for family in families if not family.startswith("cmf")}
    assert any(hook.startswith("cmf.") for hook in HOOKS)
