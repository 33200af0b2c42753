"""Views as plain data."""

import json
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import pytest

from cpex.framework.cmf.jsontext import json_ready
from cpex.framework.cmf.message import Message
from cpex.framework.cmf.view import MessageView
from cpex.framework.extensions import (
    AgentExtension,
    DataPolicy,
    Extensions,
    HttpExtension,
    ObjectSecurityProfile,
    RequestExtension,
    RetentionPolicy,
    SecurityExtension,
    SubjectExtension,
    SubjectType,
)
from cpex.framework.hooks.message import MessageHookType

HEADERS = {
    "Authorization": "Bearer t",
    "COOKIE": "c",
    "x-Api-Key": "k",
    "Proxy-Authorization": "p",
    "Set-Cookie": "s",
    "X-Request-Id": "1",
}
FULL = Extensions(
    request=RequestExtension(environment="prod", request_id="r"),
    agent=AgentExtension(session_id="s", turn=0, agent_id=""),
    http=HttpExtension(headers=HEADERS),
    security=SecurityExtension(
        labels=frozenset({"b", "a"}),
        subject=SubjectExtension(
            id="ann", type=SubjectType.USER, roles=frozenset({"z", "y"}), claims={"secret": "claim"}
        ),
        objects={"get": ObjectSecurityProfile(permissions=["read"], data_scope=["salary"])},
        data={"get": DataPolicy(apply_labels=["PII"], allowed_actions=[], retention=RetentionPolicy(policy="session"))},
    ),
)


def tool_call(arguments: dict[str, Any] | None = None, hook: str | None = None, full: bool = False) -> MessageView:
    call = {"tool_call_id": "c", "name": "get", "arguments": arguments or {}, "namespace": "hr"}
    return view({"content_type": "tool_call", "content": call}, hook, full)


def view(part: dict[str, Any], hook: str | None = None, full: bool = False) -> MessageView:
    return next(Message(role="assistant", content=[part]).iter_views(hook, FULL if full else None))


def test_a_view_is_told_in_the_order_of_the_format() -> None:
    form = tool_call({"q": "é"}, hook="llm_output", full=True).to_dict()
    assert list(form.items()) == [
        ("kind", "tool_call"),
        ("role", "assistant"),
        ("is_pre", True),
        ("is_post", False),
        ("action", "execute"),
        ("hook", "llm_output"),
        ("uri", "tool://hr/get"),
        ("name", "get"),
        ("content", '{"q": "\\u00e9"}'),
        ("size_bytes", 15),
        ("arguments", {"q": "é"}),
        ("properties", {"namespace": "hr", "tool_id": "c"}),
        ("extensions", form["extensions"]),
    ]
    assert list(form["extensions"].items()) == [
        ("subject", {"id": "ann", "type": "user", "roles": ["y", "z"], "permissions": [], "teams": []}),
        ("environment", "prod"),
        ("labels", ["a", "b"]),
        ("headers", {"X-Request-Id": "1"}),
        ("object", {"managed_by": "host", "permissions": ["read"], "trust_domain": None, "data_scope": ["salary"]}),
        (
            "data",
            {
                "apply_labels": ["PII"],
                "denied_actions": [],
                "allowed_actions": [],
                "retention": {"max_age_seconds": None, "policy": "session", "delete_after": None},
            },
        ),
        ("agent", {"session_id": "s", "turn": 0}),
    ]


def test_what_is_empty_is_left_out() -> None:
    form = view({"content_type": "text", "text": ""}).to_dict()
    assert form == {
        "kind": "text",
        "role": "assistant",
        "is_pre": False,
        "is_post": True,
        "action": "generate",
        "content": "",
        "size_bytes": 0,
    }
    assert (
        "extensions"
        not in next(
            Message(role="user", content=[{"content_type": "text", "text": "a"}]).iter_views(None, Extensions())
        ).to_dict()
    )
    assert tool_call(hook="").to_dict()["hook"] == ""
    assert tool_call().to_dict()["arguments"] == {}


@pytest.mark.conformance("M8")
def test_credentials_in_headers_are_never_told() -> None:
    extensions = FULL.model_copy(update={"http": HttpExtension(headers=dict(list(HEADERS.items())[:5]))})
    message = Message(role="user", content=[{"content_type": "text", "text": "a"}])
    assert "headers" not in next(message.iter_views(None, extensions)).to_dict()["extensions"]


@pytest.mark.conformance("M9")
def test_content_context_and_arguments_are_left_out_on_request() -> None:
    call = tool_call({"q": 1}, full=True)
    assert {"content", "size_bytes"}.isdisjoint(call.to_dict(include_content=False))
    assert call.to_dict(False)["arguments"] == {"q": 1}
    assert "extensions" not in call.to_dict(include_context=False)
    assert {"content", "arguments"}.isdisjoint(call.to_dict(include_content=False, include_arguments=False))
    resource = {"resource_request_id": "r", "uri": "u", "resource_type": "file", "annotations": {"secret": 1}}
    part = view({"content_type": "resource", "content": resource})
    assert part.to_dict()["properties"]["annotations"] == {"secret": 1}
    assert part.to_dict(include_arguments=False)["properties"] == {"resource_type": "file", "version": None}
    assert part.properties["annotations"] == {"secret": 1}


@pytest.mark.conformance("M10")
def test_the_size_in_the_dict_is_the_size_of_the_view() -> None:
    resource = {"resource_request_id": "r", "uri": "u", "resource_type": "file"}
    for fields, size, measured in [
        ({"size_bytes": 99}, 99, None),
        ({"size_bytes": 99, "content": "é"}, 99, 2),
        ({"content": "é"}, 2, 2),
        ({"blob": b"abc"}, 3, 3),
        ({"content": ""}, None, 0),
        ({}, None, None),
    ]:
        seen = view({"content_type": "resource", "content": {**resource, **fields}})
        assert (seen.size_bytes, seen.to_dict().get("size_bytes"), seen.measured_bytes) == (size, size, measured)


def test_json_text_comes_with_or_without_escapes() -> None:
    call = tool_call({"q": "é"})
    assert call.to_dict(ensure_ascii=False)["content"] == '{"q": "é"}'
    assert call.to_dict(ensure_ascii=False)["size_bytes"] == call.size_bytes == 15
    assert call.to_opa_input(ensure_ascii=False)["input"]["content"] == '{"q": "é"}'


def test_the_input_of_a_policy_is_the_dict_in_an_envelope() -> None:
    call = tool_call({"q": ["é", 1, 1.5, None, True, {}]}, full=True)
    assert call.to_opa_input() == {"input": call.to_dict()}
    assert call.to_opa_input(include_content=False) == {"input": call.to_dict(include_content=False)}
    assert "arguments" not in call.to_opa_input(include_arguments=False)["input"]


@pytest.mark.conformance("M19")
def test_the_input_of_a_policy_is_always_json_and_nobody_s_object() -> None:
    arguments: dict[str, Any] = {"at": datetime(2024, 1, 2, tzinfo=UTC), "bytes": b"\xff", "nan": float("nan")}
    arguments["self"] = arguments
    call = tool_call(arguments, hook=MessageHookType.LLM_INPUT)
    form = call.to_opa_input()["input"]
    written = json.loads(json.dumps(form, allow_nan=False))
    assert written["hook"] == "llm_input"
    assert written["arguments"]["at"] == "2024-01-02 00:00:00+00:00"
    form["arguments"]["at"] = "changed"
    assert call.args is not None
    assert call.args["at"] == datetime(2024, 1, 2, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "ready"),
    [
        ((1, "a"), [1, "a"]),
        ({2, 1}, [1, 2]),
        (frozenset({"a"}), ["a"]),
        (b"caf\xc3\xa9", "café"),
        (b"\xff", "\\xff"),
        (float("inf"), "inf"),
        (Colour.RED, "red"),
        (Text("a"), "a"),
        (date(2024, 1, 2), "2024-01-02"),
        ({None: 1, True: 2, 1.5: 3, Colour.RED: 4}, {"null": 1, "true": 2, "1.5": 3, "red": 4}),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        (Message(role="user"), {"schema_version": "2.0", "role": "user", "content": [], "channel": None}),
    ],
)
def test_what_has_no_json_form_becomes_what_comes_nearest(value: Any, ready: Any) -> None:
    assert json_ready(value) == ready
    assert type(json_ready(value)) in (dict, list, str)
