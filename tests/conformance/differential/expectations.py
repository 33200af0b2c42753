"""What the published package's outcome of a translated scenario becomes here.

Each function below edits `case.theirs` into what this framework promises, for one decision. Where the published package
leaves no trace from which that could be worked out, it takes the part out of both outcomes, and says so.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cpex.framework.extensions import Extensions

from .scenarios import Scenario
from .translation import BARE_VIOLATION, REPLY_HOOKS, VIOLATION, WATCHING, Plugin, Turn

Outcome = dict[str, Any]
Expectation = Callable[["Case"], None]

MAX_TEXT_BYTES = 256
SLOTS = tuple(Extensions.model_fields)


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
            for part, key in (("records", "plugin_name"), ("seen", "plugin"), ("seen_after", "plugin"), ("background", "plugin_name")):
                side[part] = [each for each in side[part] if each[key] != name]
            (side["table"] or {}).pop(name, None)


def _truncated(text: str | None) -> str | None:
    if text is None or len(text.encode()) <= MAX_TEXT_BYTES:
        return text
    return text.encode()[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "…"


def pass_over(case: Case) -> None:
    """Plugins whose conditions did not hold in their turn took no part."""
    theirs = case.theirs
    passed = {note["plugin"] for note in [*theirs["seen"], *theirs["seen_after"]] if note.get("passed_over")}
    before = _table_of(case.earlier)
    for name in passed:
        for part, key in (("records", "plugin_name"), ("seen", "plugin"), ("seen_after", "plugin")):
            theirs[part] = [each for each in theirs[part] if each[key] != name]
        if theirs["table"] is not None and name not in before:
            theirs["table"].pop(name, None)


def _table_of(outcomes: list[Outcome]) -> dict[str, Any]:
    """The table that the host handed to the next call."""
    return (outcomes[-1]["table"] or {}) if outcomes else {}


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
        if plugin["mode"] not in WATCHING or record["status"] != "completed" or _raised(case, plugin["name"]):
            continue
        violation = {"raise_violation": VIOLATION, "raise_violation_bare": BARE_VIOLATION}.get(turn["answer"])
        if turn["answer"] == "deny":
            violation = turn["result"].get("violation")
        if turn["answer"] == "deny" or violation is not None:
            record |= {"requested_allow": False, "matched": True}
            record["reason"] = _truncated(violation["reason"]) if violation else None
            record["error_code"] = violation["code"] if violation else None


def _raised(case: Case, name: str) -> str | None:
    return next((note["raised"] for note in case.notes(name) if "raised" in note), None)


def tell_ignored_failures(case: Case) -> None:
    """A failure that was ignored is recorded as one."""
    for record, plugin, _ in case.records():
        raised = _raised(case, plugin["name"])
        if record["status"] == "completed" and raised is not None and plugin["mode"] != "fire_and_forget":
            record |= {"status": "error", "requested_allow": None, "matched": None, "applied": False}
            record |= {"reason": _truncated(raised), "error_code": "plugin_error"}


def tell_no_reason_for_allowing(case: Case) -> None:
    """A violation beside an answer that allows is dropped, in every mode; there concurrent ones leave it in the record."""
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


def forget_cancelled_siblings(case: Case) -> None:
    """Concurrent plugins that another one's denial or failure cancelled are recorded; there they are not."""
    error = case.theirs["error"]
    if error is not None or not case.theirs["result"]["continue_processing"]:
        kept = [each for each in case.ours["records"] if each["status"] != "cancelled"]
        gone = {each["plugin_name"] for each in case.ours["records"] if each["status"] == "cancelled"}
        if gone <= set(case.of_mode("concurrent")) - {each["plugin_name"] for each in kept}:
            _forget_unstarted(case, gone - {note["plugin"] for note in case.ours["seen"]})
            # How far a sibling got before it was cancelled is a matter of chance.
            case.last = any([_take_entry(case, name) for name in gone]) or case.last
            if error is None or error["type"] != "PluginError":
                case.ours["records"] = kept


def _forget_unstarted(case: Case, names: set[str]) -> None:
    """Siblings whose turn had not begun when the call ended are not called here; there they are, and are cancelled."""
    case.theirs["seen"] = [note for note in case.theirs["seen"] if note["plugin"] not in names]
    for name in names - set(_table_of(case.earlier)):
        (case.theirs["table"] or {}).pop(name, None)


def forget_disabled(case: Case) -> None:
    """A plugin that is switched off has a record that says so; there it has none."""
    kept = [each for each in case.ours["records"] if each["status"] != "disabled"]
    gone = {each["plugin_name"] for each in case.ours["records"] if each["status"] == "disabled"}
    # Nothing that ran there may be called switched off here.
    if not gone & {note["plugin"] for note in [*case.theirs["seen"], *case.theirs["seen_after"]]}:
        case.ours["records"] = kept


def keep_what_was_gathered(case: Case) -> None:
    """Success headers reach the host; a halt keeps them, the retry delay and the denial's metadata."""
    result = case.theirs["result"]
    if result is None:
        return
    answered = [
        (record, turn)
        for record, plugin, turn in case.records()
        if plugin["mode"] != "fire_and_forget"
        and record["status"] == "completed"
        and not turn["answer"].startswith("raise_violation")
    ]
    headers: dict[str, str] = {}
    for _, turn in answered:
        headers |= turn["result"].get("http_headers") or {}
    result["http_headers"] = headers or None
    if not result["continue_processing"]:
        result["retry_delay_ms"] = max((turn["result"].get("retry_delay_ms", 0) for _, turn in answered), default=0)
        denials = [turn for record, turn in answered if not record["effective_allow"]]
        result["denial_metadata"] = denials[-1]["result"].get("denial_metadata") if denials else None


def gather_replies(case: Case) -> None:
    """Replies that the translation put aside: headers merge, of others the last stands."""
    if case.hook not in REPLY_HOOKS:
        return
    for record, plugin, _ in case.records():
        change = next(p for p in case.translated["plugins"] if p["name"] == plugin["name"])["turns"][case.hook]["change"]
        completed = record["status"] == "completed" and record["requested_allow"] is not None
        if change is not None and change["how"] == "aside" and completed and not _raised(case, plugin["name"]):
            record |= {"matched": True, "applied": True, "payload_modified": True}
    result = case.theirs["result"]
    if result is None:
        return
    told = {key: result["metadata"].pop(key) for key in list(result["metadata"]) if key.startswith("reply:")}
    if told:
        replies = list(told.values())
        result["payload_type"] = replies[-1]["type"]
        merged = case.hook in ("http_pre_request", "http_post_request")
        result["modified_payload"] = (
            {key: value for reply in replies for key, value in reply["value"].items()} if merged else replies[-1]["value"]
        )
    if case.hook == "http_auth_check_permission":
        deciders = [each["plugin_name"] for each in case.theirs["records"] if each["payload_modified"]]
        if deciders:
            result["metadata"]["_decision_plugin"] = deciders[-1]


def continue_tables(case: Case) -> None:
    """The table keeps every plugin's entry; what an entry says of shared state counts only where it was renewed."""
    theirs, before = case.theirs, _table_of(case.earlier)
    if theirs["error"] is None and (theirs["table"] is not None or before):
        theirs["table"] = {**before, **(theirs["table"] or {})}
    # A context that its plugin never looked at is made when somebody else does, with what is shared by then.
    looked = {note["plugin"] for note in theirs["seen"] if case.turn(note["plugin"])["looks"]}
    # What concurrent plugins write there is written by the runner, and background plugins see it merged.
    renewed = looked - set(case.of_mode("concurrent"))
    for side in (case.ours, theirs):
        for name, entry in (side["table"] or {}).items():
            if name not in renewed:
                entry.pop("state", None)
                entry.pop("metadata", None)


def show_the_final_payload(case: Case) -> None:
    """Background plugins see the final payload, continued state and what concurrent plugins wrote."""
    theirs, result = case.theirs, case.theirs["result"]
    names = case.of_mode("fire_and_forget")
    if result is None or not names:
        return
    reached = {each["plugin_name"] for each in theirs["records"]}
    transforms = [name for name in case.of_mode("transform") if name not in _off(case)]
    if not result["continue_processing"] and transforms and not reached & set(case.of_mode(*WATCHING, "concurrent")):
        # The transforms run in the background, unseen by the host. There they do not run at all.
        for name in names:
            case.leave_out(name)
        case.last = True
        case.ours["seen_after"] = [note for note in case.ours["seen_after"] if note["plugin"] not in transforms]
        return
    final = case.ours["result"] if case.ours["result"] is not None else result
    changed = any(each["payload_modified"] for each in theirs["records"])
    for note in theirs["seen_after"]:
        mine = next((each for each in case.ours["seen_after"] if each["plugin"] == note["plugin"]), None)
        if "payload" not in note or mine is None or "payload" not in mine:
            continue
        if changed and case.hook in REPLY_HOOKS:
            note |= {"payload": mine["payload"], "payload_type": mine["payload_type"]}
        elif changed:
            note |= {"payload": final["modified_payload"], "payload_type": final["payload_type"]}
        note |= {"state": theirs["context"]["state"], "metadata": theirs["context"]["metadata"]}
    for name in names:
        if changed and _depends_on_payload(case, name):
            case.leave_out(name)
            case.last = True
        elif case.number:
            _continue_own_state(case, name)


def _off(case: Case) -> set[str]:
    return {each["plugin_name"] for each in case.ours["records"] if each["status"] == "disabled"}


def _depends_on_payload(case: Case, name: str) -> bool:
    turn = case.turn(name)
    return bool(turn["edits"] or turn["change"] or case.plugin(name)["conditions"])


def _continue_own_state(case: Case, name: str) -> None:
    for side in (case.ours, case.theirs):
        for note in side["seen_after"]:
            if note["plugin"] == name:
                note.pop("own", None)
                note.pop("own_metadata", None)
    _take_entry(case, name)


def _take_entry(case: Case, name: str) -> bool:
    """Believe what the table says of a plugin here; returns whether that is something else than there."""
    ours, theirs = case.ours["table"] or {}, case.theirs["table"] or {}
    if name not in ours or name not in theirs or theirs[name] == ours[name]:
        return False
    theirs[name] = copy.deepcopy(ours[name])
    return True


def chain_extensions(case: Case) -> None:
    """Extensions are merged by tier and capability after each plugin, and shown to the next."""
    given = case.scenario["extensions"]
    chain: dict[str, Any] = {"custom": dict((given or {}).get("custom", {})), "labels": []}
    chain["labels"] = sorted((given or {}).get("security", {}).get("labels", []))
    changed = False
    notes = {note["plugin"]: note for note in case.theirs["seen"]}
    for record, plugin, turn in case.records():
        note = notes.get(plugin["name"])
        if note is not None and plugin["mode"] != "fire_and_forget":
            _show(note, plugin, chain)
        accepted = _accept_extensions(case, record, plugin, turn, chain)
        changed = changed or accepted
        if record["status"] == "completed" and record["requested_allow"] is not None:
            record["extensions_modified"] = accepted
            if not (record["reason"] or record["error_code"]) and record["effective_allow"] and record["requested_allow"]:
                record["matched"] = record["applied"] = accepted or record["payload_modified"]
            elif not record["requested_allow"] and record["effective_allow"]:
                record["applied"] = accepted or record["payload_modified"]
    for note in case.theirs["seen_after"]:
        _show(note, case.plugin(note["plugin"]), chain)
    if case.theirs["result"] is not None:
        case.theirs["result"]["modified_extensions"] = _final_extensions(case, chain) if changed else None


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


def _accept_extensions(case: Case, record: Outcome, plugin: Plugin, turn: Turn, chain: dict[str, Any]) -> bool:
    wanted = turn["extensions"]
    answers = turn["answer"] == "allow" or (turn["answer"] == "deny" and plugin["mode"] == "transform")
    if not wanted or not answers or plugin["mode"] not in ("sequential", "transform"):
        return False
    if record["status"] != "completed" or _raised(case, plugin["name"]):
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


def call_containers_by_name(case: Case) -> None:
    """Plugins hold plain dicts and lists, and their failures say so."""
    text = json.dumps(case.theirs)
    if "CopyOnWrite" in text:
        case.theirs = json.loads(text.replace("CopyOnWriteList", "list").replace("CopyOnWriteDict", "dict"))


def forget_where_it_failed(case: Case) -> None:
    """What fails in the script there may fail behind it here, and the other way round; the records tell that it did."""
    for side in (case.ours, case.theirs):
        for note in [*side["seen"], *side["seen_after"]]:
            translated = next(each for each in case.translated["plugins"] if each["name"] == note["plugin"])
            there, here = translated["turns"][case.hook], case.turn(note["plugin"])
            refused = there["change"] is not None and there["change"]["how"] in ("refused", "validated")
            if there["answer"] != here["answer"] or refused:
                note.pop("raised", None)


EXPECTATIONS: tuple[tuple[str, Expectation], ...] = (
    ("D13", call_containers_by_name),
    ("D5a", pass_over),
    ("D7b", tell_raised_violations),
    ("D22", forget_disabled),
    ("D19", forget_cancelled_siblings),
    ("D22a", tell_no_reason_for_allowing),
    ("D22a", tell_background_truth),
    ("D8", tell_ignored_failures),
    ("D7", tell_would_be_denials),
    ("D29", gather_replies),
    ("D17", chain_extensions),
    ("D21", keep_what_was_gathered),
    ("D24", continue_tables),
    ("D16", show_the_final_payload),
    ("D18", name_timeouts),
    ("D20", keep_records_of_failures),
    ("", forget_where_it_failed),
)
"""`(decision, expectation)`, in the order in which they apply."""
