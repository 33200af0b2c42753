"""Scenarios, made by hypothesis: plugins × modes × priorities × policies × conditions × payloads × behaviours.

A scenario is plain JSON, in the form that `side/runner.py` acts out.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .catalogue import HOOKS, PAIRS, HookFacts

Scenario = dict[str, Any]
Strategy = st.SearchStrategy[Any]

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget", "disabled")
TIMEOUT_S = 0.4
"""Limit of every plugin in scenarios in which one hangs; the others end at once."""

_ANSWERS = (
    *("allow",) * 12,
    *("deny",) * 3,
    *("raise", "raise_timeout", "raise_plugin_error", "raise_violation", "raise_violation_bare"),
    *("none", "a_dict", "a_text"),
)
_RESULT_FIELDS: tuple[dict[str, Any], ...] = (
    {},
    {"metadata": {"m": 1}},
    {"metadata": {"m": 2, "_decision_plugin": "forged"}},
    {"metadata": None},
    {"retry_delay_ms": 5},
    {"retry_delay_ms": 9, "metadata": {"k": {"n": 1}}},
    {"http_headers": {"X": "1"}},
    {"denial_metadata": {"score": 3, "text": "dropped"}},
)
_VIOLATIONS: tuple[dict[str, Any], ...] = (
    {"reason": "because", "description": "it is so", "code": "NO"},
    {"reason": "long " * 80, "description": "d", "code": "a code!", "http_status_code": 403, "details": {"a": [1]}},
)
_WRITES: tuple[dict[str, Any], ...] = (
    {"where": "state", "do": "set", "key": "k", "value": 1},
    {"where": "state", "do": "set", "key": "k", "value": 2},
    {"where": "state", "do": "set", "key": "own", "value": [1]},
    {"where": "state", "do": "delete", "key": "start", "value": None},
    {"where": "state", "do": "grow", "key": "box", "value": 1},
    {"where": "metadata", "do": "set", "key": "m", "value": {"a": 1}},
    {"where": "metadata", "do": "delete", "key": "start", "value": None},
    {"where": "metadata", "do": "grow", "key": "box", "value": 2},
    {"where": "own", "do": "set", "key": "seen", "value": 1},
    {"where": "own", "do": "grow", "key": "deep", "value": 1},
    {"where": "own", "do": "delete", "key": "seen", "value": None},
    {"where": "own_metadata", "do": "set", "key": "note", "value": "x"},
    {"where": "shared", "do": "assign", "key": "tenant_id", "value": "forged"},
)
_CONTEXTS: tuple[dict[str, Any], ...] = (
    {},
    {"user": "me@example.org", "tenant_id": "a", "server_id": "s"},
    {"user": {"email": "me@example.org", "groups": ["g"]}, "tenant_id": "b", "content_type": "application/JSON; q=1"},
)
_CONDITIONS: tuple[dict[str, Any], ...] = (
    {"server_ids": ["s"]},
    {"tenant_ids": ["a", "c"]},
    {"user_patterns": ["example"]},
    {"content_types": ["Application/json"]},
    {"tenant_ids": ["a"], "user_patterns": ["me@"]},
    {},
)
_EXTENSIONS: dict[str, Any] = {
    "request": {"environment": "test"},
    "custom": {"a": 1},
    "security": {"labels": ["pii"], "subject": {"id": "me", "type": "user", "roles": ["r"]}},
    "http": {"headers": {"A": "1"}},
    "agent": {"session_id": "s1"},
}
_EXTENSION_WRITES: tuple[dict[str, Any], ...] = (
    {"custom": {"b": 2}},
    {"custom": {"c": {"d": 3}}},
    {"labels": ["secret"]},
    {"environment": "forged"},
)
_CAPABILITIES = ((), ("read_labels", "append_labels"), ("read_subject", "read_roles", "read_headers"), ("read_agent",))


def rarely(unusual: Strategy, usual: Any, weight: int = 4) -> Strategy:
    """Mostly the usual value."""
    return st.sampled_from([True] + [False] * weight).flatmap(lambda odd: unusual if odd else st.just(usual))


def _change(facts: HookFacts, edits: bool) -> Strategy:
    ways = [st.just({"how": "view"})] * (3 if edits else 1)
    if facts.changes:
        fields = st.sampled_from(facts.changes)
        ways += [
            st.builds(lambda fields: {"how": "copy", "fields": fields}, fields),
            st.builds(lambda fields: {"how": "copy", "fields": fields}, fields),
            st.builds(lambda fields: {"how": "fresh", "fields": fields}, fields),
            rarely(st.builds(lambda fields: {"how": "dict", "fields": fields}, fields), {"how": "view"}, 2),
            rarely(st.just({"how": "foreign"}), {"how": "view"}, 3),
        ]
    if facts.replies:
        ways += [st.builds(lambda reply: {"how": "reply", "fields": reply}, st.sampled_from(facts.replies))] * 4
    return st.one_of(ways)


@st.composite
def turns(draw: st.DrawFn, hook: str, extended: bool) -> dict[str, Any]:
    """What one plugin does when one hook is called."""
    facts = HOOKS[hook]
    edits = draw(rarely(st.lists(st.sampled_from(facts.edits), min_size=1, max_size=2), [], 2)) if facts.edits else []
    answer = draw(st.sampled_from(_ANSWERS))
    result = dict(draw(rarely(st.sampled_from(_RESULT_FIELDS), {}, 2)))
    if (answer == "deny" and draw(rarely(st.just(False), True))) or draw(rarely(st.just(True), False, 12)):
        result["violation"] = draw(st.sampled_from(_VIOLATIONS))
    change = draw(st.one_of(st.none(), _change(facts, bool(edits))))
    return {
        "looks": draw(rarely(st.just(False), True)),
        "yields": draw(rarely(st.just(20), 0)),
        "edits": edits,
        "edits_on": "view",
        "writes_late": False,
        "writes": draw(rarely(st.lists(st.sampled_from(_WRITES), min_size=1, max_size=3), [], 2)),
        "answer": answer,
        "change": change,
        "extensions": draw(rarely(st.sampled_from(_EXTENSION_WRITES), None, 2)) if extended else None,
        # The hook's own result class validates what a bare one takes as it is.
        "typed": draw(st.booleans()) and (change is None or change["how"] not in ("dict", "foreign", "view")),
        "result": result,
    }


@st.composite
def plugins(draw: st.DrawFn, number: int, hooks: list[str], extended: bool) -> dict[str, Any]:
    """One plugin, for one or more of the hooks."""
    mine = draw(rarely(st.lists(st.sampled_from(hooks), min_size=1, unique=True), hooks))
    return {
        "name": f"p{number}",
        "mode": draw(st.sampled_from(MODES[:3] * 2 + MODES[3:5] * 2 + MODES[5:])),
        "priority": draw(st.integers(1, 3)),
        "on_error": draw(st.sampled_from(("fail", "ignore", "ignore", "disable"))),
        "conditions": draw(rarely(_conditions(mine), [], 3)),
        "capabilities": list(draw(st.sampled_from(_CAPABILITIES))) if extended else [],
        "three": draw(rarely(st.just(True), extended)),
        "turns": {hook: draw(turns(hook, extended)) for hook in mine},
    }


def _conditions(hooks: list[str]) -> Strategy:
    entities = [HOOKS[hook].entity for hook in hooks]
    about = [{entity[0]: ["t"]} for entity in entities if entity is not None]
    about += [{**condition, "tenant_ids": ["a"]} for condition in about]
    return st.lists(st.sampled_from([*_CONDITIONS, *about * 3]), min_size=1, max_size=2)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A manager with one to four plugins, and one to three calls of one request."""
    first = draw(st.sampled_from([*HOOKS, "tool_pre_invoke", "tool_post_invoke", "tool_pre_invoke"]))
    called = [first]
    if draw(st.booleans()):
        called += [PAIRS.get(first, first)]
    called += draw(rarely(st.just([first]), []))
    hooks = list(dict.fromkeys(called))
    extended = draw(rarely(st.just(True), False))
    team = [draw(plugins(number, hooks, extended)) for number in range(draw(st.integers(1, 4)))]
    hanging = draw(rarely(st.just(True), False, 60))
    if hanging:
        draw(st.sampled_from([turn for plugin in team for turn in plugin["turns"].values()]))["answer"] = "hang"
    return {
        "plugins": team,
        "calls": [{"hook": hook, "payload": draw(st.sampled_from(HOOKS[hook].payloads))} for hook in called],
        "policies": draw(st.one_of(st.none(), st.fixed_dictionaries({hook: _writable(hook) for hook in hooks}))),
        "default_policy": draw(rarely(st.just("deny"), "allow")),
        "raises": draw(rarely(st.just(True), False, 2)),
        "context": {
            "request_id": "r",
            "state": {"start": 1, "box": {"n": 0, "kept": True}},
            "metadata": {"start": 1},
            **draw(st.sampled_from(_CONTEXTS)),
        },
        "extensions": _EXTENSIONS if extended and draw(rarely(st.just(False), True)) else None,
        "timeout": TIMEOUT_S if hanging else 30,
        "carry": False,
        "from_file": draw(rarely(st.just(True), False, 15)),
    }


def _writable(hook: str) -> Strategy:
    fields = HOOKS[hook].writable
    return st.lists(st.sampled_from(fields), unique=True).map(sorted) if fields else st.just([])
