"""Scenarios in the words of the published package.

Where behaviour differs by decision, there is mostly another scenario that makes the published package do what this one
does here: a plugin that edits a copy cannot leak, one that answers instead of raising is treated as answering. Each
function below rewrites a scenario in place for one decision. What cannot be said that way stands in `expectations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .scenarios import Scenario

Plugin = dict[str, Any]
Turn = dict[str, Any]
Rewrite = Callable[[Scenario], None]

REWRITING = ("sequential", "transform")
WATCHING = ("transform", "audit")
VIOLATION = {"reason": "because", "description": "it is so", "code": "NO"}
BARE_VIOLATION = {"reason": "stopped", "description": "stopped", "code": "plugin_violation"}
FOREIGN = {"none": "NoneType", "a_dict": "dict", "a_text": "str"}
REPLY_HOOKS = frozenset(
    {
        "http_pre_request",
        "http_post_request",
        "http_auth_resolve_user",
        "http_auth_check_permission",
        "identity_resolve",
        "token_delegate",
    }
)
FOREIGN_CLASS_HOOK = "resource_pre_fetch"
"""Where the foreign payload of the scripts is the hook's own."""


def each_turn(scenario: Scenario) -> Iterator[tuple[Plugin, str, Turn]]:
    """Every plugin's turn in every hook."""
    for plugin in scenario["plugins"]:
        for hook, turn in plugin["turns"].items():
            yield plugin, hook, turn


def closed(scenario: Scenario, hook: str) -> bool:
    """Whether nothing may be written in a hook."""
    return hook not in (scenario["policies"] or {}) and scenario["default_policy"] == "deny"


def _payload_counts(scenario: Scenario, plugin: Plugin, hook: str, turn: Turn) -> bool:
    """Whether the payload that a turn returns is looked at."""
    return plugin["mode"] in REWRITING and turn["answer"] == "allow" and not closed(scenario, hook)


def spare_the_payload(scenario: Scenario) -> None:
    """What a plugin does in place reaches nobody else; when it returns it, it counts, and only then."""
    for _, _, turn in each_turn(scenario):
        if turn["edits"]:
            turn["edits_on"] = "copy"
        if turn["change"] is not None and turn["change"]["how"] == "view":
            turn["change"] = {"how": "edited"}


def write_whole_keys(scenario: Scenario) -> None:
    """A nested edit of shared state is a write of its top-level key, where the mode may write."""
    for _, _, turn in each_turn(scenario):
        turn["writes"] = [
            {**write, "do": "replace"} if write["do"] == "grow" and write["where"] in ("state", "metadata") else write
            for write in turn["writes"]
        ]


def answer_violations(scenario: Scenario) -> None:
    """A raised violation is the same as that denial returned."""
    for _, _, turn in each_turn(scenario):
        if turn["answer"] in ("raise_violation", "raise_violation_bare"):
            violation = VIOLATION if turn["answer"] == "raise_violation" else BARE_VIOLATION
            turn |= {"answer": "deny", "result": {"violation": violation}, "change": None, "extensions": None}


def ignore_failing_audits(scenario: Scenario) -> None:
    """An audit plugin that fails never ends the call."""
    for plugin in scenario["plugins"]:
        if plugin["mode"] == "audit" and plugin["on_error"] == "fail":
            plugin["on_error"] = "ignore"


def raise_foreign_answers(scenario: Scenario) -> None:
    """An answer that is no result is a failure, with a message that says so."""
    for _, _, turn in each_turn(scenario):
        if turn["answer"] in FOREIGN:
            turn["answer"] = f"raise_foreign_{FOREIGN[turn['answer']]}"


def own_the_timeout(scenario: Scenario) -> None:
    """A plugin's own `TimeoutError` is its failure."""
    for _, _, turn in each_turn(scenario):
        if turn["answer"] == "raise_timeout":
            turn["answer"] = "raise_like_timeout"


def allow_instead_of_watching(scenario: Scenario) -> None:
    """A would-be denial keeps the rest of its answer; that it was one is added to its record afterwards."""
    for plugin, _, turn in each_turn(scenario):
        if plugin["mode"] in WATCHING and turn["answer"] == "deny":
            turn["answer"] = "allow"
            turn["result"] = {key: value for key, value in turn["result"].items() if key != "violation"}


def hold_payload_classes(scenario: Scenario) -> None:
    """A dict is validated into the hook's payload; a payload of another class is the plugin's failure."""
    for plugin, hook, turn in each_turn(scenario):
        if turn["change"] is None or not _payload_counts(scenario, plugin, hook, turn):
            continue
        if turn["change"]["how"] == "dict":
            turn["change"] = {**turn["change"], "how": "validated"}
        elif turn["change"]["how"] == "foreign" and hook != FOREIGN_CLASS_HOOK:
            turn["change"] = {"how": "refused", "plugin": plugin["name"]}


def put_replies_aside(scenario: Scenario) -> None:
    """Every plugin receives the request; replies gather beside it."""
    for plugin, hook, turn in each_turn(scenario):
        replies = turn["change"] is not None and turn["change"]["how"] == "reply"
        if replies and _payload_counts(scenario, plugin, hook, turn):
            turn["change"] = {**turn["change"], "how": "aside"}


def judge_conditions_late(scenario: Scenario) -> None:
    """Conditions are judged right before the turn, on the payload as it then stands; by the plugin, which may pass."""
    for plugin, _, turn in each_turn(scenario):
        if plugin["conditions"]:
            turn["guard"] = plugin["conditions"]
    for plugin in scenario["plugins"]:
        plugin["conditions"] = []


def merge_in_order(scenario: Scenario) -> None:
    """Concurrent plugins' writes merge in order of priority, only what each wrote; the runner does it."""
    for plugin, _, turn in each_turn(scenario):
        turn["writes_late"] = plugin["mode"] == "concurrent"


def bury_deletions(scenario: Scenario) -> None:
    """Deletions of shared state merge."""
    for plugin, _, turn in each_turn(scenario):
        if plugin["mode"] in (*REWRITING, "concurrent"):
            turn["writes"] = [
                {**write, "do": "bury"}
                if write["do"] == "delete" and write["where"] in ("state", "metadata")
                else write
                for write in turn["writes"]
            ]


def carry_contexts(scenario: Scenario) -> None:
    """Contexts of plugins that did not run in a hook stay in the table."""
    scenario["carry"] = True


REWRITES: tuple[tuple[str, Rewrite], ...] = (
    ("D12", spare_the_payload),
    ("D11", write_whole_keys),
    ("D7b", answer_violations),
    ("D7a", ignore_failing_audits),
    ("D9", raise_foreign_answers),
    ("D18", own_the_timeout),
    ("D7", allow_instead_of_watching),
    ("D29", hold_payload_classes),
    ("D29", put_replies_aside),
    ("D5a", judge_conditions_late),
    ("D19", merge_in_order),
    ("D19", bury_deletions),
    ("D24", carry_contexts),
)
"""`(decision, rewrite)`, in the order in which they apply."""
