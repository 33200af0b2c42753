"""One call of a scenario as both sides told it, and what can be asked about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .scenarios import Scenario
from .translation import Plugin, Turn

Outcome = dict[str, Any]
Expectation = Callable[["Case"], None]


@dataclass
class Case:
    """One call of a scenario, as both sides told it."""

    scenario: Scenario
    """As it was acted out here."""
    translated: Scenario
    """As it was acted out there."""
    number: int
    ours: Outcome
    theirs: Outcome
    earlier: list[Outcome] = field(default_factory=list)
    """What was expected of the calls before."""
    last: bool = False
    """Whether the two sides part for good here, so that later calls say nothing."""

    @property
    def hook(self) -> str:
        """The hook that was called."""
        return str(self.scenario["calls"][self.number]["hook"])

    def plugin(self, name: str) -> Plugin:
        """A plugin of the scenario by name."""
        return next(plugin for plugin in self.scenario["plugins"] if plugin["name"] == name)

    def turn(self, name: str) -> Turn:
        """What that plugin does in this call."""
        turn: Turn = self.plugin(name)["turns"][self.hook]
        return turn

    def translated_turn(self, name: str) -> Turn:
        """What that plugin does there."""
        plugin = next(plugin for plugin in self.translated["plugins"] if plugin["name"] == name)
        turn: Turn = plugin["turns"][self.hook]
        return turn

    def of_mode(self, *modes: str) -> list[str]:
        """Names of the plugins of a mode that have this hook."""
        return [
            plugin["name"]
            for plugin in self.scenario["plugins"]
            if plugin["mode"] in modes and self.hook in plugin["turns"]
        ]

    def notes(self, name: str) -> list[Outcome]:
        """What a plugin saw there, in this call."""
        notes = [*self.theirs["seen"], *self.theirs["seen_after"]]
        return [note for note in notes if note["plugin"] == name]

    def records(self) -> Iterator[tuple[Outcome, Plugin, Turn]]:
        """The records from there, each with its plugin and turn."""
        for record in self.theirs["records"]:
            yield record, self.plugin(record["plugin_name"]), self.turn(record["plugin_name"])

    def leave_out(self, name: str) -> None:
        """Take every trace of a plugin out of both outcomes of this call."""
        for side in (self.ours, self.theirs):
            for part, key in (
                ("records", "plugin_name"),
                ("seen", "plugin"),
                ("seen_after", "plugin"),
                ("background", "plugin_name"),
            ):
                side[part] = [each for each in side[part] if each[key] != name]
            (side["table"] or {}).pop(name, None)

    def raised(self, name: str) -> str | None:
        """The text of the failure that a plugin ended with there, if it did."""
        return next((note["raised"] for note in self.notes(name) if "raised" in note), None)

    @property
    def table_before(self) -> dict[str, Any]:
        """The table that the host handed in."""
        return (self.earlier[-1]["table"] or {}) if self.earlier else {}

    def believe_table(self, name: str) -> bool:
        """Take over what the table says of a plugin here; returns whether that is something else than there."""
        ours, theirs = self.ours["table"] or {}, self.theirs["table"] or {}
        if name not in ours or name not in theirs or theirs[name] == ours[name]:
            return False
        theirs[name] = copy.deepcopy(ours[name])
        return True
