"""What differs in extensions: merged by tier and capability, and shown to the next plugin; see `expectations.py`."""

from __future__ import annotations

import copy
from typing import Any

from cpex.framework.extensions import Extensions

from .case import Case, Outcome
from .translation import Plugin, Turn

SLOTS = tuple(Extensions.model_fields)


def chain_extensions(case: Case) -> None:
    """Extensions are merged by tier and capability after each plugin, and shown to the next."""
    given = case.scenario["extensions"]
    chain: dict[str, Any] = {"custom": dict((given or {}).get("custom", {})), "labels": []}
    chain["labels"] = sorted((given or {}).get("security", {}).get("labels", []))
    changed = False
    records = {record["plugin_name"]: record for record in case.theirs["records"]}
    # By what was seen, not by the records: a call that failed has none.
    for note in case.theirs["seen"]:
        plugin, turn = case.plugin(note["plugin"]), case.turn(note["plugin"])
        _show(note, plugin, chain)
        accepted = "raised" not in note and _accept_extensions(case, plugin, turn, chain)
        changed = changed or accepted
        if (record := records.get(plugin["name"])) is not None:
            _record(record, accepted)
    for note in case.theirs["seen_after"]:
        _show(note, case.plugin(note["plugin"]), chain)
    if case.theirs["result"] is not None:
        case.theirs["result"]["modified_extensions"] = _final_extensions(case, chain) if changed else None


def _record(record: Outcome, accepted: bool) -> None:
    if record["status"] != "completed" or record["requested_allow"] is None:
        return
    record["extensions_modified"] = accepted
    changed = accepted or record["payload_modified"]
    if record["requested_allow"]:
        record["matched"] = record["applied"] = changed
    elif record["effective_allow"]:
        record["applied"] = changed


def _show(note: Outcome, plugin: Plugin, chain: dict[str, Any]) -> None:
    if not plugin["three"] or "extensions" not in note:
        return
    shown = note["extensions"]
    if shown is None and chain["custom"]:
        shown = note["extensions"] = dict.fromkeys(SLOTS)
    if shown is not None:
        shown["custom"] = dict(chain["custom"]) if shown["custom"] is not None or chain["custom"] else None
        if shown["security"] is not None and {"read_labels", "append_labels"} & set(plugin["capabilities"]):
            shown["security"]["labels"] = list(chain["labels"])


def _accept_extensions(case: Case, plugin: Plugin, turn: Turn, chain: dict[str, Any]) -> bool:
    wanted = turn["extensions"]
    answers = turn["answer"] == "allow" or (turn["answer"] == "deny" and plugin["mode"] == "transform")
    if not wanted or not answers or plugin["mode"] not in ("sequential", "transform"):
        return False
    before = copy.deepcopy(chain)
    chain["custom"] |= wanted.get("custom", {})
    if case.scenario["extensions"] is not None and "append_labels" in plugin["capabilities"]:
        chain["labels"] = sorted({*chain["labels"], *wanted.get("labels", [])})
    return chain != before


def _final_extensions(case: Case, chain: dict[str, Any]) -> dict[str, Any]:
    base = case.theirs["host_extensions"]
    final: dict[str, Any] = copy.deepcopy(base) if base is not None else dict.fromkeys(SLOTS)
    final["custom"] = chain["custom"]
    if final.get("security") is not None:
        final["security"]["labels"] = chain["labels"]
    return final
