"""What differs in records and errors; see `expectations.py`."""

from __future__ import annotations

import itertools
import json
import re

from .case import Case
from .translation import BARE_VIOLATION, VIOLATION, WATCHING

MAX_TEXT_BYTES = 256

PYDANTIC_HEAD = re.compile(r"\d+ validation errors? for (.+)")
PYDANTIC_REASON = re.compile(r"  (.+) \[type=\w+, input_value=.*")


def _truncated(text: str | None) -> str | None:
    if text is None or len(text.encode()) <= MAX_TEXT_BYTES:
        return text
    return text.encode()[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "…"


def quote_no_refused_values(case: Case) -> None:
    """Of what pydantic refused, places and reasons are told; there the text is pydantic's own, with the values."""
    theirs = case.theirs
    for told in [*theirs["background"], *([theirs["error"]] if theirs["error"] is not None else [])]:
        told["message"] = _unquoted(told["message"])
    # What the script itself noticed is the same on both sides; expectations make texts of it.
    for side in (case.ours, theirs):
        for note in [*side["seen"], *side["seen_after"]]:
            if "raised" in note:
                note["raised"] = _unquoted(note["raised"])


def _unquoted(text: str) -> str:
    lines = text.split("\n")
    if (head := PYDANTIC_HEAD.fullmatch(lines[0])) is None:
        return text
    found = itertools.pairwise(lines[1:])
    told = [f"{place}: {reason[1]}" for place, line in found if (reason := PYDANTIC_REASON.fullmatch(line))]
    unquoted = f"{head[1]}: {'; '.join(told)}"
    return f"ValidationError({unquoted!r})"


def pass_over(case: Case) -> None:
    """Plugins whose conditions did not hold in their turn took no part."""
    theirs = case.theirs
    passed = {note["plugin"] for note in [*theirs["seen"], *theirs["seen_after"]] if note.get("passed_over")}
    before = case.table_before
    for name in passed:
        for part, key in (("records", "plugin_name"), ("seen", "plugin"), ("seen_after", "plugin")):
            theirs[part] = [each for each in theirs[part] if each[key] != name]
        if theirs["table"] is not None and name not in before:
            theirs["table"].pop(name, None)


def tell_raised_violations(case: Case) -> None:
    """A violation that a plugin raised reaches the host as the plugin's own exception."""
    error = case.theirs["error"]
    if error is None or error["type"] != "PluginViolationError":
        return
    denier = case.theirs["records"][-1]["plugin_name"]
    if case.turn(denier)["answer"].startswith("raise_violation"):
        error["message"] = "stopped"


def tell_would_be_denials(case: Case) -> None:
    """A denial in a mode that cannot deny is recorded as what it would have been."""
    for record, plugin, turn in case.records():
        if plugin["mode"] not in WATCHING or record["status"] != "completed" or case.raised(plugin["name"]):
            continue
        violation = {"raise_violation": VIOLATION, "raise_violation_bare": BARE_VIOLATION}.get(turn["answer"])
        if turn["answer"] == "deny":
            violation = turn["result"].get("violation")
        if turn["answer"] == "deny" or violation is not None:
            record |= {"requested_allow": False, "matched": True}
            record["reason"] = _truncated(violation["reason"]) if violation else None
            record["error_code"] = violation["code"] if violation else None


def tell_ignored_failures(case: Case) -> None:
    """A failure that was ignored is recorded as one."""
    for record, plugin, _ in case.records():
        raised = case.raised(plugin["name"])
        if record["status"] == "completed" and raised is not None and plugin["mode"] != "fire_and_forget":
            record |= {"status": "error", "requested_allow": None, "matched": None, "applied": False}
            record |= {"reason": _truncated(raised), "error_code": "plugin_error"}


def tell_no_reason_for_allowing(case: Case) -> None:
    """A violation beside an answer that allows is dropped in every mode; there a concurrent one's is recorded."""
    for record, plugin, turn in case.records():
        if plugin["mode"] == "concurrent" and turn["answer"] == "allow" and record["status"] == "completed":
            record |= {"reason": None, "error_code": None}


def tell_background_truth(case: Case) -> None:
    """The record of a background plugin says in the end how it ended."""
    told = {each["plugin_name"]: each for each in case.theirs["background"]}
    for record, plugin, _ in case.records():
        name = plugin["name"]
        if plugin["mode"] != "fire_and_forget" or name not in told:
            continue
        late = told[name]["message"] == "TimeoutError()"
        if late:
            told[name]["message"] = f"Plugin {name} exceeded {case.scenario['timeout']:g}s timeout"
        record |= {"status": "timeout" if late else "error", "reason": _truncated(told[name]["message"])}
        record["error_code"] = "plugin_timeout" if late else "plugin_error"


def forget_disabled(case: Case) -> None:
    """A plugin that is switched off has a record that says so; there it has none."""
    kept = [each for each in case.ours["records"] if each["status"] != "disabled"]
    gone = {each["plugin_name"] for each in case.ours["records"] if each["status"] == "disabled"}
    # Nothing that ran there may be called switched off here.
    if not gone & {note["plugin"] for note in [*case.theirs["seen"], *case.theirs["seen_after"]]}:
        case.ours["records"] = kept


def name_timeouts(case: Case) -> None:
    """The error of a plugin that took too long says so by its code and names the hook; nothing caused it but time."""
    error = case.theirs["error"]
    if error is not None and error["type"] == "PluginError" and error["message"].endswith("s timeout"):
        error |= {"code": "plugin_timeout", "details": {"hook": case.hook}, "cause": None}


def keep_records_of_failures(case: Case) -> None:
    """A `PluginError` carries the records; there it has none, so only their plugins and the culprit are compared."""
    error = case.theirs["error"]
    if error is None or error["type"] != "PluginError" or case.ours["error"] is None:
        return
    case.theirs["records"] = sorted({note["plugin"] for note in case.theirs["seen"]})
    case.theirs["culprit"] = error["plugin_name"]
    culprits = [
        each["plugin_name"]
        for each in case.ours["records"]
        if not each["effective_allow"] and each["status"] != "cancelled"
    ]
    case.ours["culprit"] = culprits[0] if len(culprits) == 1 else culprits
    called = {note["plugin"] for note in case.ours["seen"]}
    case.ours["records"] = sorted({each["plugin_name"] for each in case.ours["records"]} & called)


def call_containers_by_name(case: Case) -> None:
    """Plugins hold plain dicts and lists, and their failures say so."""
    text = json.dumps(case.theirs)
    if "CopyOnWrite" in text:
        case.theirs = json.loads(text.replace("CopyOnWriteList", "list").replace("CopyOnWriteDict", "dict"))


def forget_where_it_failed(case: Case) -> None:
    """What fails in the script there may fail behind it here, and the other way round; the records tell that it did."""
    for side in (case.ours, case.theirs):
        for note in [*side["seen"], *side["seen_after"]]:
            there, here = case.translated_turn(note["plugin"]), case.turn(note["plugin"])
            refused = there["change"] is not None and there["change"]["how"] in ("refused", "validated")
            if there["answer"] != here["answer"] or refused:
                note.pop("raised", None)
