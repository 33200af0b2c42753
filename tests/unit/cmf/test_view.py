"""What a view tells of a part, of the request, and of its place."""

import copy
import json
import logging
import operator
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cpex.framework.cmf.message import (
    ContentPart,
    Message,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
    ResourceRefContentPart,
    ResourceReference,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.view import MessageView, ViewAction, ViewKind, iter_views
from cpex.framework.extensions import (
    AgentExtension,
    DataPolicy,
    DelegationExtension,
    Extensions,
    HttpExtension,
    MetaExtension,
    ObjectSecurityProfile,
    RequestExtension,
    SecurityExtension,
    SubjectExtension,
    SubjectType,
)
from cpex.framework.hooks.message import MessageHookType

REFERENCE = {"resource_request_id": "r1", "uri": "file:///a", "resource_type": "file"}
SOURCE = {"type": "url", "data": "https://x/y", "media_type": "a/b"}
CONTENTS: dict[str, dict[str, Any]] = {
    "text": {"text": "hi"},
    "thinking": {"text": ""},
    "tool_call": {"content": {"tool_call_id": "c", "name": "get", "arguments": {"q": "é"}, "namespace": "hr"}},
    "tool_result": {"content": {"tool_call_id": "c", "tool_name": "get", "content": {"a": [1, None]}}},
    "resource": {"content": {**REFERENCE, "name": "A", "content": "é", "mime_type": "t/p", "version": "2"}},
    "resource_ref": {"content": {**REFERENCE, "name": "A"}},
    "prompt_request": {"content": {"prompt_request_id": "p", "name": "greet", "arguments": {}}},
    "prompt_result": {"content": {"prompt_request_id": "p", "prompt_name": "greet", "content": "short"}},
    "image": {"content": SOURCE},
    "video": {"content": SOURCE},
    "audio": {"content": SOURCE},
    "document": {"content": SOURCE},
}


def view_of(kind: str, role: str = "user", extensions: Extensions | None = None, **content: Any) -> MessageView:
    data = CONTENTS[kind]
    data = {"content": {**data["content"], **content}} if content else data
    message = Message(role=role, content=[{"content_type": kind, **data}])
    (view,) = message.iter_views("llm_input", extensions)
    return view


@pytest.mark.parametrize(
    ("kind", "content", "uri", "name", "mime_type", "size"),
    [
        ("text", "hi", None, None, None, 2),
        ("thinking", "", None, None, None, 0),
        ("tool_call", '{"q": "\\u00e9"}', "tool://hr/get", "get", None, 15),
        ("tool_result", '{"a": [1, null]}', "tool_result://get", "get", None, 16),
        ("resource", "é", "file:///a", "A", "t/p", 2),
        ("resource_ref", None, "file:///a", "A", None, None),
        ("prompt_request", "{}", "prompt://_/greet", "greet", None, 2),
        ("prompt_result", "short", "prompt_result://greet", "greet", None, 5),
        ("image", None, None, None, "a/b", None),
        ("video", None, None, None, "a/b", None),
        ("audio", None, None, None, "a/b", None),
        ("document", None, None, None, "a/b", None),
    ],
)
def test_content_address_name_type_and_size_by_kind(
    kind: str, content: str | None, uri: str | None, name: str | None, mime_type: str | None, size: int | None
) -> None:
    view = view_of(kind)
    assert view.kind is ViewKind(kind)
    assert (view.content, view.uri, view.name, view.mime_type, view.size_bytes) == (content, uri, name, mime_type, size)
    assert view.has_content() is (content is not None)


FIXED = {
    "tool_call": (ViewAction.EXECUTE, True),
    "tool_result": (ViewAction.RECEIVE, False),
    "resource": (ViewAction.READ, False),
    "resource_ref": (ViewAction.READ, True),
    "prompt_request": (ViewAction.INVOKE, True),
    "prompt_result": (ViewAction.RECEIVE, False),
}
BY_ROLE = {
    "system": (ViewAction.SEND, True),
    "developer": (ViewAction.SEND, True),
    "user": (ViewAction.SEND, True),
    "assistant": (ViewAction.GENERATE, False),
    "tool": (ViewAction.RECEIVE, False),
}


@pytest.mark.parametrize("role", BY_ROLE)
@pytest.mark.parametrize("kind", CONTENTS)
def test_action_and_direction_by_kind_or_else_by_role(kind: str, role: str) -> None:
    view = view_of(kind, role)
    assert (view.action, view.is_pre) == FIXED.get(kind, BY_ROLE[role])
    assert view.is_post is not view.is_pre
    assert view.role is Role(role)


@pytest.mark.parametrize("kind", CONTENTS)
def test_each_kind_belongs_to_one_group(kind: str) -> None:
    view = view_of(kind)
    groups = [view.is_tool, view.is_prompt, view.is_resource, view.is_text, view.is_media]
    expected = ["tool" in kind, "prompt" in kind, "resource" in kind, kind in ("text", "thinking")]
    assert groups[:4] == expected
    assert groups[4] is not any(expected)


def test_properties_are_what_only_one_kind_has() -> None:
    assert view_of("tool_call").properties == {"namespace": "hr", "tool_id": "c"}
    assert view_of("tool_result").properties == {"is_error": False, "tool_name": "get"}
    assert view_of("resource").properties == {"resource_type": "file", "version": "2", "annotations": {}}
    assert view_of("prompt_request").properties == {"server_id": None}
    assert view_of("prompt_result").properties == {"is_error": False, "message_count": 0}
    for kind in ("text", "thinking", "resource_ref", "image", "video", "audio", "document"):
        assert view_of(kind).properties == {}
    view = view_of("prompt_request")
    assert view.get_property("server_id", "x") is None
    assert view.get_property("other", "x") == "x"
    assert view.properties is not view.properties


@pytest.mark.parametrize(
    ("resource", "size"),
    [
        ({"size_bytes": 0, "content": "abc"}, 0),
        ({"size_bytes": None, "content": "é"}, 2),
        ({"content": None, "blob": b"123"}, 3),
        ({"content": ""}, None),
        ({"content": None, "blob": b""}, None),
        ({"content": None}, None),
    ],
)
def test_a_resource_knows_its_size_or_is_measured(resource: dict[str, Any], size: int | None) -> None:
    assert view_of("resource", **resource).size_bytes == size


@pytest.mark.conformance("M3")
@pytest.mark.parametrize(
    ("result", "content", "text"),
    [
        (None, None, None),
        ("", "", ""),
        (False, "false", "false"),
        (0, "0", "0"),
        (float("nan"), "NaN", "NaN"),
        ({"é": "日"}, '{"\\u00e9": "\\u65e5"}', '{"é": "日"}'),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02 00:00:00+00:00", "2024-01-02 00:00:00+00:00"),
        (b"x", "b'x'", "b'x'"),
    ],
)
def test_results_become_text(result: Any, content: str | None, text: str | None) -> None:
    view = view_of("tool_result", content=result)
    assert view.content == content
    assert view.text == text


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (cyclic(), "{'self': {...}}"),
        (Unprintable(), "<Unprintable>"),
        (deep(), "<list>"),
        (10**5000, "<int>"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
    ],
    ids=["cyclic", "unprintable", "deep", "long", "odd_key"],
)
def test_no_argument_stops_a_scan(value: Any, text: str) -> None:
    part = ToolResultContentPart(content=ToolResult(tool_call_id="c", tool_name="t", content=value))
    assert next(iter_views(Message(role="tool", content=[part]))).content == text


def test_half_a_surrogate_pair_has_a_size() -> None:
    view = view_of("tool_result", content="a\ud800")
    assert view.size_bytes == 4
    assert view.to_dict()["size_bytes"] == 4


def test_arguments_are_asked_by_name() -> None:
    view = view_of("tool_call", arguments={"a": None})
    assert isinstance(view.raw, ToolCallContentPart)
    assert view.args == view.raw.content.arguments
    assert view.get_arg("a", 1) is None
    assert view.get_arg("b", 1) == 1
    assert (view.has_arg("a"), view.has_arg("b")) == (True, False)
    text = view_of("text")
    assert text.args is None
    assert text.get_arg("a", 1) == 1
    assert not text.has_arg("a")


@pytest.mark.conformance("M11")
def test_what_a_view_hands_out_cannot_be_edited() -> None:
    call = view_of("tool_call", arguments={"q": [{"a": 1}], "t": ([1],)})
    annotated = view_of("resource", annotations={"by": ["me"]})
    assert isinstance(call.args, dict)
    assert json.loads(json.dumps(call.args)) == {"q": [{"a": 1}], "t": [[1]]}
    edits: list[Callable[[], Any]] = [
        lambda: operator.setitem(call.args, "q", 1),
        lambda: call.get_arg("q").append(1),
        lambda: call.get_arg("q")[0].update(a=2),
        lambda: call.get_arg("t")[0].clear(),
        lambda: call.to_dict()["arguments"].pop("q"),
        lambda: annotated.properties["annotations"]["by"].insert(0, 1),
        lambda: annotated.get_property("annotations").setdefault("x", 1),
        lambda: annotated.to_dict()["properties"]["annotations"].popitem(),
    ]
    for edit in edits:
        with pytest.raises(TypeError, match=r"^a view of a message is read-only; edit a copy, and put it into"):
            edit()
    raw: Any = call.raw
    assert raw.content.arguments == {"q": [{"a": 1}], "t": ([1],)}


def test_copies_of_what_a_view_hands_out_are_plain() -> None:
    args = view_of("tool_call", arguments={"q": [{"a": 1}]}).args
    assert args is not None
    for made in (copy.deepcopy(args), pickle.loads(pickle.dumps(args))):
        assert made == {"q": [{"a": 1}]}
        made["q"][0]["a"] = made["x"] = 2
        assert (type(made), type(made["q"]), type(made["q"][0])) == (dict, list, dict)
    for made in (dict(args), args.copy(), copy.copy(args), {**args}, args | {}):
        made["q"] = 1
    assert [type(args["q"].copy()), type(copy.copy(args["q"])), type(args["q"][:])] == [list, list, list]


def test_arguments_that_contain_themselves_or_are_nested_deeply_are_handed_out() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    args = view_of("tool_call", arguments={"v": value, "deep": deep()}).args
    assert args is not None
    assert args["v"]["self"] is args["v"]


@pytest.mark.conformance("M20")
@pytest.mark.parametrize("hook", ["cmf.resource_pre_fetch", MessageHookType.RESOURCE_PRE_FETCH])
def test_a_resource_that_stands_before_its_hook_is_written(hook: str) -> None:
    resource = Resource(resource_request_id="r", uri="file:///a", resource_type="file", content="new")
    reference = ResourceReference(resource_request_id="r", uri="file:///a", resource_type="file")
    parts: list[ContentPart] = [ResourceContentPart(content=resource), ResourceRefContentPart(content=reference)]
    written, read = iter_views(Message(role="user", content=parts), hook)
    assert (written.action, written.is_pre, written.is_post) == (ViewAction.WRITE, True, False)
    assert written.to_dict()["action"] == "write"
    assert (read.action, read.is_pre) == (ViewAction.READ, True)
    for other in (None, "cmf.resource_post_fetch", "cmf.llm_input"):
        view = next(iter_views(Message(role="user", content=parts), other))
        assert (view.action, view.is_pre) == (ViewAction.READ, False)


def test_views_follow_the_parts_and_know_the_hook() -> None:
    parts: list[ContentPart] = [TextContent(text="a"), TextContent(text="b")]
    message = Message(role="user", content=parts)
    views = list(iter_views(message, "h", None))
    assert [view.raw for view in views] == parts
    assert all(view.raw is part and view.hook == "h" for view, part in zip(views, parts, strict=True))
    assert [repr(view) for view in message.iter_views("h")] == [repr(view) for view in views]
    assert list(Message(role="user").iter_views()) == []
    assert isinstance(iter_views(message), Iterator)


def test_a_view_shows_itself() -> None:
    assert repr(view_of("text")) == "MessageView(kind=text, role=user, pre, hook=llm_input)"
    view = next(iter_views(Message(role="assistant", content=[view_of("tool_result").raw])))
    assert repr(view) == "MessageView(kind=tool_result, role=assistant, post, uri=tool_result://get)"


def test_a_view_is_read_only_and_equal_to_itself_alone() -> None:
    one, other = (view_of("text") for _ in "ab")
    assert one != other
    assert [one].index(one) == 0
    assert len({one, other}) == 2
    for name in ("kind", "content", "anything"):
        with pytest.raises(AttributeError):
            setattr(one, name, "x")


def test_a_part_of_unknown_kind_is_told_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    part = TextContent(text="a").model_copy(update={"content_type": "hologram"})
    message = Message(role="user").model_copy(update={"content": [part]})
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match="unknown content type `hologram`; known: te"),
    ):
        list(message.iter_views())
    assert "hologram" in caplog.text


# Nesting.


def prompt_result(*messages: Message, **fields: Any) -> PromptResultContentPart:
    result = PromptResult(prompt_request_id="p", prompt_name="greet", messages=list(messages), **fields)
    return PromptResultContentPart(content=result)


def said(text: str, role: str = "user") -> Message:
    return Message(role=role, content=[TextContent(text=text)])


@pytest.mark.conformance("M2")
def test_nested_messages_are_viewed_on_request_with_their_role_and_place() -> None:
    inner = Message(
        role="assistant", content=[TextContent(text="x"), prompt_result(said("deep")), TextContent(text="y")]
    )
    message = Message(
        role="tool", content=[TextContent(text="a"), prompt_result(said("b"), inner), TextContent(text="z")]
    )

    assert [view.kind.value for view in message.iter_views()] == ["text", "prompt_result", "text"]
    seen = [(view.path, view.role.value, view.content) for view in message.iter_views(recursive=True)]
    result = "content[1].content.messages"
    assert seen == [
        ("content[0]", "tool", "a"),
        ("content[1]", "tool", None),
        (f"{result}[0].content[0]", "user", "b"),
        (f"{result}[1].content[0]", "assistant", "x"),
        (f"{result}[1].content[1]", "assistant", None),
        (f"{result}[1].content[1].content.messages[0].content[0]", "user", "deep"),
        (f"{result}[1].content[2]", "assistant", "y"),
        ("content[2]", "tool", "z"),
    ]
    assert [view.index for view in message.iter_views()] == [0, 1, 2]


def test_a_message_that_contains_itself_is_entered_once() -> None:
    part = prompt_result(said("inner"))
    message = Message(role="user", content=[part])
    part.content.messages.append(message)
    assert [view.kind.value for view in message.iter_views(recursive=True)] == ["prompt_result", "text"]


def test_nesting_of_any_depth_is_viewed() -> None:
    message = said("bottom")
    for _ in range(3000):
        message = Message(role="user", content=[prompt_result(message)])
    views = list(message.iter_views(recursive=True))
    assert len(views) == 3001
    assert views[-1].content == "bottom"


# Changes.


@pytest.mark.conformance("M4")
def test_the_part_behind_a_view_is_replaced_at_any_depth_and_the_original_stays() -> None:
    message = Message(role="user", content=[TextContent(text="a"), prompt_result(said("b"), said("c"))])
    before = message.model_copy(deep=True)
    views = list(message.iter_views(recursive=True))

    changed = views[3].replace_text("C")

    assert message == before
    assert [view.content for view in changed.iter_views(recursive=True)] == ["a", None, "b", "C"]
    assert changed.content[0] is message.content[0]
    assert views[0].replace(TextContent(text="A")).content[0] == TextContent(text="A")


def test_text_is_replaced_where_a_part_has_one() -> None:
    def replaced(kind: str, **content: Any) -> MessageView:
        return next(view_of(kind, **content).replace_text("new").iter_views())

    for kind in ("text", "thinking", "tool_result", "prompt_result", "resource"):
        assert replaced(kind).content == "new"
        assert replaced(kind).size_bytes == 3
    resource = replaced("resource", content=None, blob=b"123456", size_bytes=6).raw
    assert isinstance(resource, ResourceContentPart)
    assert resource.content == Resource(**REFERENCE, name="A", content="new", mime_type="t/p", version="2")


def test_what_cannot_be_replaced_is_refused() -> None:
    with pytest.raises(TypeError, match="a part of kind `tool_call` has no text that could be replaced"):
        view_of("tool_call").replace_text("x")
    with pytest.raises(TypeError, match="expected a text, got int"):
        view_of("text").replace_text(5)
    with pytest.raises(TypeError, match="expected a content part, got str"):
        view_of("text").replace("x")
    part = TextContent(text="a")
    by_hand = MessageView(part, ViewKind.TEXT, Message(role="user", content=[part]))
    assert (by_hand.index, by_hand.path, by_hand.content) == (None, "", "a")
    with pytest.raises(ValueError, match="make it with `iter_views`"):
        by_hand.replace_text("b")


# The request.

FULL = Extensions(
    request=RequestExtension(environment="prod", request_id="r", trace_id="t"),
    agent=AgentExtension(input="i", session_id="s", conversation_id="c", turn=0, agent_id="a", parent_agent_id="p"),
    http=HttpExtension(headers={"X-Empty": "", "Authorization": "Bearer t"}),
    security=SecurityExtension(
        labels=frozenset({"PII"}),
        classification="secret",
        subject=SubjectExtension(
            id="ann",
            type=SubjectType.USER,
            roles=frozenset({"hr"}),
            permissions=frozenset({"read"}),
            teams=frozenset({"t1"}),
            claims={"iss": "me"},
        ),
        objects={"get": ObjectSecurityProfile(managed_by="tool")},
        data={"get": DataPolicy(denied_actions=["export"])},
    ),
    delegation=DelegationExtension(origin_subject_id="ann"),
    meta=MetaExtension(tags=frozenset({"beta"})),
)
ABSENT: dict[str, Any] = {
    **dict.fromkeys(
        ["environment", "request_id", "trace_id", "subject", "agent_input", "session_id", "conversation_id"]
    ),
    **dict.fromkeys(["turn", "agent_id", "parent_agent_id", "object", "data_policy", "classification", "delegation"]),
    **dict.fromkeys(["roles", "permissions", "teams", "labels", "tags"], frozenset()),
    "headers": {},
    "claims": {},
}


@pytest.mark.parametrize(
    "extensions",
    [
        None,
        Extensions(),
        Extensions(
            security=SecurityExtension(), agent=AgentExtension(), request=RequestExtension(), meta=MetaExtension()
        ),
    ],
    ids=["none", "empty", "blank"],
)
@pytest.mark.parametrize("name", ABSENT)
def test_facts_that_are_missing_have_an_empty_answer(name: str, extensions: Extensions | None) -> None:
    value = getattr(view_of("tool_call", extensions=extensions), name)
    assert value == ABSENT[name]
    assert value is not None or ABSENT[name] is None


@pytest.mark.conformance("M18")
def test_facts_of_the_request_are_flat() -> None:
    view = view_of("tool_call", extensions=FULL)
    assert (view.environment, view.request_id, view.trace_id) == ("prod", "r", "t")
    assert (view.agent_input, view.session_id, view.conversation_id, view.turn) == ("i", "s", "c", 0)
    assert (view.agent_id, view.parent_agent_id) == ("a", "p")
    assert (view.roles, view.permissions, view.teams) == ({"hr"}, {"read"}, {"t1"})
    assert (view.labels, view.tags, view.claims, view.classification) == ({"PII"}, {"beta"}, {"iss": "me"}, "secret")
    assert FULL.security is not None
    assert view.subject is FULL.security.subject
    assert view.delegation is FULL.delegation
    assert (view.has_role("hr"), view.has_role("HR")) == (True, False)
    assert (view.has_permission("read"), view.has_label("PII"), view.has_label("pii")) == (True, True, False)


def test_headers_are_read_whatever_their_case_and_written_never() -> None:
    view = view_of("text", extensions=FULL)
    assert view.get_header("AUTHORIZATION") == "Bearer t"
    assert (view.get_header("x-empty"), view.has_header("x-empty")) == ("", True)
    assert (view.get_header("x-other", "d"), view.has_header("x-other")) == ("d", False)
    with pytest.raises(TypeError):
        view.headers["X"] = "y"
    with pytest.raises(TypeError):
        view.claims["X"] = "y"


@pytest.mark.conformance("M7")
def test_profiles_are_found_by_address_then_by_qualified_name_then_by_name() -> None:
    def found(kind: str, *keys: str, **content: Any) -> str | None:
        objects = {key: ObjectSecurityProfile(managed_by=key) for key in keys}
        data = {key: DataPolicy(apply_labels=[key]) for key in keys}
        extensions = Extensions(security=SecurityExtension(objects=objects, data=data))
        view = view_of(kind, extensions=extensions, **content)
        assert (view.object is None) is (view.data_policy is None)
        assert view.data_policy is None or view.data_policy.apply_labels == [view.object and view.object.managed_by]
        return view.object.managed_by if view.object is not None else None

    assert found("tool_call", "get", "hr/get", "tool://hr/get") == "tool://hr/get"
    assert found("tool_call", "get", "hr/get", "other/get") == "hr/get"
    assert found("tool_call", "get", "other/get") == "get"
    assert found("prompt_request", "s/greet", server_id="s") == "s/greet"
    assert found("resource", "file:///a", name=None) == "file:///a"
    assert found("tool_result", "get") == "get"
    assert found("text", "get") is None


def test_a_tool_without_a_namespace_has_a_placeholder_in_its_address() -> None:
    call = ToolCallContentPart(content=ToolCall(tool_call_id="c", name="n"))
    view = next(iter_views(Message(role="assistant", content=[call])))
    assert view.raw is call
    assert view.uri == "tool://_/n"
    assert next(iter_views(Message(role="assistant", content=[call]), None, FULL)).object is None
