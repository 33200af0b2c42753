"""Scenarios that chance makes too seldom for a short run; every run begins with them."""

from __future__ import annotations

from typing import Any

from .scenarios import Scenario


def _plugin(name: str, **turn: Any) -> dict[str, Any]:
    plain = {
        "looks": False,
        "yields": 0,
        "edits": [],
        "edits_on": "view",
        "writes_late": False,
        "writes": [],
        "answer": "allow",
        "extensions": None,
        "typed": False,
        "result": {},
    }
    return {
        "name": name,
        "mode": "sequential",
        "priority": 1,
        "on_error": "fail",
        "conditions": [],
        "capabilities": [],
        "three": True,
        "turns": {"prompt_pre_fetch": {**plain, **turn}},
    }


REFUSED_BY_PYDANTIC: Scenario = {
    "plugins": [
        # An argument of a prompt is a text.
        _plugin(
            "p0",
            edits=[{"path": ["args"], "do": "set", "key": "new", "value": {"a": [1]}}],
            change={"how": "view"},
        ),
        # It makes a payload of its own from what it was shown, and pydantic refuses.
        _plugin("p1", change={"how": "fresh", "fields": {"prompt_id": "u"}}),
    ],
    "calls": [{"hook": "prompt_pre_fetch", "payload": {"prompt_id": "t", "args": {"text": "a"}}}],
    "policies": None,
    "default_policy": "allow",
    "raises": True,
    "context": {"request_id": "r", "state": {}, "metadata": {}},
    "extensions": None,
    "timeout": 30,
    "carry": False,
    "from_file": True,
}
"""A failure whose text is pydantic's: departure D9.values."""

RARE = (REFUSED_BY_PYDANTIC,)
