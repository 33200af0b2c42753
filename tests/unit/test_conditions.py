"""When a plugin's conditions hold."""

from enum import Enum
from types import SimpleNamespace

import pytest

from cpex.framework.conditions import compile_conditions, entity_fields
from cpex.framework.models import GlobalContext, PluginCondition, UserContext
from cpex.framework.utils import get_matchable_value, matches, payload_matches

TOOL = SimpleNamespace(name="search")


class Hook(str, Enum):
    TOOL_PRE_INVOKE = "tool_pre_invoke"


def context(**values):
    return GlobalContext(**{"request_id": "1", **values})


def holds(condition, payload=TOOL, hook="tool_pre_invoke", **request):
    conditions = [PluginCondition(**each) for each in ([condition] if isinstance(condition, dict) else condition)]
    return payload_matches(payload, hook, conditions, context(**request))


def message(*parts):
    content = [SimpleNamespace(content_type=kind, content=SimpleNamespace(**values)) for kind, values in parts]
    return SimpleNamespace(message=SimpleNamespace(content=content))


def test_without_conditions_everything_matches():
    assert payload_matches(TOOL, "tool_pre_invoke", [], context()) is True
    assert compile_conditions([], "tool_pre_invoke") is None


def test_a_condition_that_asks_for_nothing_matches_whatever_the_others_say():
    assert holds([{"tools": ["other"]}, {}])
    assert holds({"tools": [], "server_ids": [], "user_patterns": [], "content_types": []})


@pytest.mark.parametrize("field", ["server_ids", "tenant_ids"])
def test_servers_and_tenants_must_be_listed(field):
    request = field.removesuffix("s")

    assert holds({field: ["a", "b"]}, **{request: "a"})
    assert not holds({field: ["a", "b"]}, **{request: "c"})
    assert not holds({field: ["a", "b"]})


@pytest.mark.parametrize(
    ("listed", "requested", "expected"),
    [
        (["application/json"], "Application/JSON; charset=utf-8", True),
        (["Text/HTML; q=1"], "text/html", True),
        (["application/*"], "application/json", False),
        (["application/json"], None, False),
        ([" "], None, False),
        ([" "], "application/json", False),
    ],
)
def test_content_types_are_compared_without_parameters_and_without_wildcards(listed, requested, expected):
    assert holds({"content_types": listed}, content_type=requested) is expected


@pytest.mark.conformance("D5a")
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("alice@corp.example", True),
        ("bob@other.example", False),
        ({"email": "alice@corp.example"}, True),
        ({"name": "x", "id": "corp.example/7"}, True),
        ({"user_id": "@corp.example"}, True),
        ({"@corp.example": "x"}, False),
        ({"team": "@corp.example"}, False),
        ({"email": None, "id": 5}, False),
        (None, False),
        ("", False),
    ],
)
def test_users_match_by_a_part_of_what_they_are_known_by(user, expected):
    assert holds({"user_patterns": ["nobody", "corp.example"]}, user=user) is expected


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"user_id": "u-7", "email": "alice@corp.example"}, True),
        ({"user_id": "corp.example/7"}, True),
        ({"user_id": "u-7", "full_name": "Alice (corp.example)"}, True),
        ({"user_id": "u-7", "department": "corp.example"}, False),
    ],
)
@pytest.mark.parametrize("user", [None, "", "u-7"])
def test_users_match_by_what_the_host_has_authenticated_too(user, known, expected):
    """A host that tells of the user there alone must not switch guards off by it."""
    request = {"user": user, "user_context": UserContext(**known)}
    assert holds({"user_patterns": ["corp.example"]}, **request) is expected


def test_everything_in_one_condition_must_hold_and_one_condition_is_enough():
    both = {"tools": ["search"], "tenant_ids": ["t"]}

    assert holds(both, tenant_id="t")
    assert not holds(both, tenant_id="u")
    assert not holds(both, payload=SimpleNamespace(name="other"), tenant_id="t")
    assert holds([both, {"server_ids": ["s"]}], server_id="s")


@pytest.mark.conformance("D5a")
@pytest.mark.parametrize(
    ("hook", "field", "attribute"),
    [
        ("tool_pre_invoke", "tools", "name"),
        ("tool_post_invoke", "tools", "name"),
        ("prompt_pre_fetch", "prompts", "prompt_id"),
        ("prompt_post_fetch", "prompts", "prompt_id"),
        ("resource_pre_fetch", "resources", "uri"),
        ("resource_post_fetch", "resources", "uri"),
        ("agent_pre_invoke", "agents", "agent_id"),
        ("agent_post_invoke", "agents", "agent_id"),
        ("token_delegate", "tools", "target_name"),
    ],
)
def test_an_entity_must_be_listed_and_an_empty_one_is_not(hook, field, attribute):
    def payload(value):
        return SimpleNamespace(**{attribute: value})

    assert holds({field: ["a"]}, payload("a"), hook)
    assert not holds({field: ["a"]}, payload("A"), hook)
    assert not holds({field: ["a"]}, payload(""), hook)
    assert not holds({field: ["a"]}, payload(None), hook)
    assert not holds({field: ["a"]}, SimpleNamespace(), hook)
    assert get_matchable_value(payload("a"), hook) == "a"
    assert entity_fields(hook) == {field}


def test_an_entity_that_is_no_text_is_compared_by_its_text():
    class Uri:
        def __str__(self):
            return "file:///a"

    assert holds({"resources": ["file:///a"]}, SimpleNamespace(uri=Uri()), "resource_pre_fetch")
    assert get_matchable_value(SimpleNamespace(uri=Uri()), "resource_pre_fetch") == "file:///a"


@pytest.mark.conformance("D5")
@pytest.mark.parametrize("hook", ["http_pre_request", "identity_resolve", "custom"])
def test_a_set_of_entities_that_a_hook_has_not_asks_for_nothing(hook):
    assert holds({"tools": ["other"]}, SimpleNamespace(raw_token="x", name="y"), hook)
    assert holds({"prompts": ["other"]}, TOOL, "tool_pre_invoke")
    assert entity_fields(hook) == frozenset()
    assert get_matchable_value(SimpleNamespace(raw_token="x"), hook) is None


def test_enum_members_and_strings_are_the_same_hook():
    conditions = [PluginCondition(tools=["other"])]

    assert not payload_matches(TOOL, Hook.TOOL_PRE_INVOKE, conditions, context())
    assert get_matchable_value(TOOL, Hook.TOOL_PRE_INVOKE) == "search"


@pytest.mark.conformance("D5", "D5a")
@pytest.mark.parametrize("hook", ["cmf.tool_pre_invoke", "cmf.llm_output", "evaluate"])
@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("tools", ("tool_call", {"name": "a"})),
        ("tools", ("tool_result", {"tool_name": "a"})),
        ("prompts", ("prompt_request", {"name": "a"})),
        ("prompts", ("prompt_result", {"prompt_name": "a"})),
        ("resources", ("resource", {"uri": "a"})),
        ("resources", ("resource_ref", {"uri": "a"})),
    ],
)
def test_any_entity_of_a_message_counts(hook, field, part):
    other = ("tool_call", {"name": "other"})

    assert holds({field: ["a"]}, message(other, part), hook)
    assert not holds({field: ["b"]}, message(other, part), hook)


@pytest.mark.conformance("D5a")
@pytest.mark.parametrize(
    "payload",
    [
        message(),
        message(("text", {})),
        message(("tool_call", {"name": None})),
        SimpleNamespace(message=None),
        SimpleNamespace(message=SimpleNamespace(content="text")),
        SimpleNamespace(message=SimpleNamespace(content=[None, "x"])),
        SimpleNamespace(),
    ],
)
def test_a_message_that_names_no_entity_does_not_match(payload):
    assert not holds({"tools": ["a"]}, payload, "cmf.tool_pre_invoke")


def test_messages_have_no_agents_to_compare_with():
    assert entity_fields("cmf.tool_pre_invoke") == {"tools", "prompts", "resources"}
    assert holds({"agents": ["a"]}, message(), "cmf.tool_pre_invoke")
    assert get_matchable_value(message(("tool_call", {"name": "a"})), "cmf.tool_pre_invoke") is None


def test_the_part_about_the_request_can_be_asked_alone():
    assert matches(PluginCondition(tenant_ids=["t"], tools=["never looked at"]), context(tenant_id="t"))
    assert not matches(PluginCondition(tenant_ids=["t"]), context())


def test_a_compiled_judge_does_not_follow_later_changes():
    condition = PluginCondition(tools={"search"})
    judge = compile_conditions([condition], "tool_pre_invoke")

    condition.tools.clear()

    assert judge(TOOL, context())
    assert not judge(SimpleNamespace(name="other"), context())
