"""What differs in results, tables and background plugins; see `expectations.py`."""

from __future__ import annotations

from .case import Case
from .translation import REPLY_HOOKS, WATCHING


def forget_cancelled_siblings(case: Case) -> None:
    """Concurrent plugins that another one's denial or failure cancelled are recorded; there they are not."""
    error = case.theirs["error"]
    if error is not None or not case.theirs["result"]["continue_processing"]:
        kept = [each for each in case.ours["records"] if each["status"] != "cancelled"]
        gone = {each["plugin_name"] for each in case.ours["records"] if each["status"] == "cancelled"}
        if gone <= set(case.of_mode("concurrent")) - {each["plugin_name"] for each in kept}:
            _forget_unstarted(case, gone - {note["plugin"] for note in case.ours["seen"]})
            _forget_their_metadata(case, gone)
            # How far a sibling got before it was cancelled is a matter of chance, and there some go on regardless.
            for note in [*case.theirs["seen"], *case.ours["seen"]]:
                if note["plugin"] in gone:
                    note.pop("raised", None)
            differs = {name for name in gone if case.believe_table(name)}
            switched_off = any(case.plugin(name)["on_error"] == "disable" for name in gone)
            case.last = case.last or bool(gone and (error is not None or differs or switched_off))
            if error is None or error["type"] != "PluginError":
                case.ours["records"] = kept


def _forget_unstarted(case: Case, names: set[str]) -> None:
    """Siblings whose turn had not begun when the call ended are not called here; there they are, and are cancelled."""
    case.theirs["seen"] = [note for note in case.theirs["seen"] if note["plugin"] not in names]
    for name in names - set(case.table_before):
        (case.theirs["table"] or {}).pop(name, None)


def _forget_their_metadata(case: Case, names: set[str]) -> None:
    """Only plugins that count have a say in the metadata; there, siblings that ended unheard have."""
    if case.theirs["result"] is None:
        return
    heard = [
        case.translated_turn(plugin["name"])
        for record, plugin, _ in case.records()
        if plugin["name"] not in names and record["requested_allow"] is not None and not case.raised(plugin["name"])
    ]
    for name in names:
        for key in (case.translated_turn(name)["result"].get("metadata") or {}).keys() - {"_decision_plugin"}:
            values = [told[key] for turn in heard if key in (told := turn["result"].get("metadata") or {})]
            case.theirs["result"]["metadata"].pop(key, None)
            if values:
                case.theirs["result"]["metadata"][key] = values[-1]


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
        change = case.translated_turn(plugin["name"])["change"]
        completed = record["status"] == "completed" and record["requested_allow"] is not None
        if change is not None and change["how"] == "aside" and completed and not case.raised(plugin["name"]):
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
            {key: value for reply in replies for key, value in reply["value"].items()}
            if merged
            else replies[-1]["value"]
        )
    if case.hook == "http_auth_check_permission":
        deciders = [each["plugin_name"] for each in case.theirs["records"] if each["payload_modified"]]
        if deciders:
            result["metadata"]["_decision_plugin"] = deciders[-1]


def continue_tables(case: Case) -> None:
    """The table keeps every plugin's entry; what an entry says of shared state counts only where it was renewed."""
    theirs, before = case.theirs, case.table_before
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
        if changed:
            note["containers"] = mine["containers"]
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
    case.believe_table(name)
