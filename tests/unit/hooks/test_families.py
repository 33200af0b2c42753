"""Names, payloads and results of the built-in hooks."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from cpex.framework.extensions import DelegationExtension
from cpex.framework.hooks.agents import AgentHookType, AgentPostInvokePayload, AgentPreInvokePayload
from cpex.framework.hooks.http import (
    HttpAuthCheckPermissionPayload,
    HttpAuthCheckPermissionResultPayload,
    HttpAuthResolveUserResult,
    HttpHeaderPayload,
    HttpHeaderPayloadResult,
    HttpHookType,
    HttpPostRequestPayload,
    HttpPostRequestResult,
    HttpPreRequestPayload,
    HttpPreRequestResult,
)
from cpex.framework.hooks.identity import (
    AttenuationConfig,
    DelegationPayload,
    DelegationResult,
    IdentityHookType,
    IdentityPayload,
    IdentityResult,
)
from cpex.framework.hooks.prompts import PromptHookType, PromptPosthookPayload, PromptPrehookPayload
from cpex.framework.hooks.resources import ResourceHookType, ResourcePostFetchPayload, ResourcePreFetchPayload
from cpex.framework.hooks.tools import (
    ToolHookType,
    ToolPostInvokePayload,
    ToolPostInvokeResult,
    ToolPreInvokePayload,
    ToolPreInvokeResult,
)
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

quiet_headers = pytest.mark.filterwarnings(r"ignore:.*\.headers is deprecated:DeprecationWarning")


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (ToolHookType, ["tool_pre_invoke", "tool_post_invoke"]),
        (PromptHookType, ["prompt_pre_fetch", "prompt_post_fetch"]),
        (ResourceHookType, ["resource_pre_fetch", "resource_post_fetch"]),
        (AgentHookType, ["agent_pre_invoke", "agent_post_invoke"]),
        (
            HttpHookType,
            ["http_pre_request", "http_post_request", "http_auth_resolve_user", "http_auth_check_permission"],
        ),
        (IdentityHookType, ["identity_resolve", "token_delegate"]),
    ],
)
def test_hook_names_are_enum_members_that_pass_for_text(names: Any, values: list[str]) -> None:
    assert list(names) == values
    member = next(iter(names))
    assert {member: 1}[values[0]] == 1
    assert str(member) == f"{names.__name__}.{member.name}"


def test_payloads_are_frozen_and_changed_by_copy() -> None:
    payload = ToolPreInvokePayload(name="search", args={"q": "x"})
    with pytest.raises(ValidationError, match="frozen"):
        payload.name = "other"
    assert payload.model_copy(update={"name": "other"}).args == {"q": "x"}


def test_a_tool_payload_keeps_an_explicit_none_and_refuses_a_list_of_arguments() -> None:
    assert ToolPreInvokePayload(name="a").args == {}
    assert ToolPreInvokePayload(name="a", args=None).args is None
    with pytest.raises(ValidationError):
        ToolPreInvokePayload(name="a", args=[1])


def test_a_tools_result_stays_what_it_was() -> None:
    result = {"rows": [{"a": 1}]}
    assert type(ToolPostInvokePayload(name="a", result=result).result) is dict
    assert ToolPostInvokePayload(name="a", result=None).result is None
    with pytest.raises(ValidationError):
        ToolPostInvokePayload(name="a")


def test_prompt_arguments_are_text() -> None:
    assert PromptPrehookPayload(prompt_id="p", args={"a": "1"}).args == {"a": "1"}
    with pytest.raises(ValidationError):
        PromptPrehookPayload(prompt_id="p", args={"a": 1})


def test_a_prompt_result_from_json_is_read_by_attribute_and_dumps_as_it_came() -> None:
    result = {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]}
    payload = PromptPosthookPayload.model_validate_json(json.dumps({"prompt_id": "p", "result": result}))
    assert payload.result.messages[0].content.text == "hi"
    assert payload.model_dump()["result"] == result


def test_large_results_and_tuples_are_read_by_attribute_as_well() -> None:
    messages = [{"role": "user", "content": {"text": str(number)}} for number in range(600)]
    result = {"messages": messages, "tuple": ({"a": 1}, 2), "plain": (1, 2)}
    payload = PromptPosthookPayload(prompt_id="p", result=result)
    assert payload.result.messages[599].content.text == "599"
    assert (payload.result.tuple[0].a, payload.result.tuple[1]) == (1, 2)
    assert payload.result.plain is result["plain"]
    agent = AgentPreInvokePayload(agent_id="a", messages=({"content": {"parts": [{"n": n} for n in range(600)]}},))
    assert isinstance(agent.messages, list)
    assert agent.messages[0].content.parts[599].n == 599


def test_a_prompt_result_object_is_kept() -> None:
    for result in (SimpleNamespace(messages=[]), [{"a": 1}], HttpHeaderPayload({})):
        assert PromptPosthookPayload(prompt_id="p", result=result).result is result


def test_resource_content_stays_a_dict() -> None:
    payload = ResourcePostFetchPayload(uri="file:///a", content={"text": "x"})
    assert payload.content == {"text": "x"}
    assert ResourcePreFetchPayload(uri="not a uri").metadata == {}


def test_agent_messages_given_as_dicts_are_read_by_attribute_and_others_are_kept() -> None:
    own = SimpleNamespace(role="user")
    payload = AgentPreInvokePayload(agent_id="a", messages=[{"content": {"text": "hi"}}, own])
    assert payload.messages[0].content.text == "hi"
    assert payload.messages[1] is own
    assert AgentPostInvokePayload(agent_id="a", messages=[{"role": "user"}]).messages[0].role == "user"


@quiet_headers
def test_an_http_request_needs_headers() -> None:
    with pytest.raises(ValidationError):
        HttpPreRequestPayload(path="/", method="GET")
    with pytest.raises(ValidationError):
        HttpPreRequestPayload(path="/", method="GET", headers=None)
    payload = HttpPostRequestPayload(path="/", method="GET", headers={"A": "1"}, response_headers={"B": "2"})
    assert isinstance(payload, HttpPreRequestPayload)
    assert payload.model_dump(mode="json") == {
        "path": "/",
        "method": "GET",
        "client_host": None,
        "client_port": None,
        "headers": {"A": "1"},
        "response_headers": {"B": "2"},
        "status_code": None,
    }


def test_a_permission_question_and_its_answer() -> None:
    question = HttpAuthCheckPermissionPayload(user_email="ada@example.org", permission="tools.read")
    assert (question.is_admin, question.team_id) == (False, None)
    assert HttpAuthCheckPermissionResultPayload(granted=True).reason is None


def test_results_are_one_class_per_payload() -> None:
    assert PluginResult[ToolPreInvokePayload] is ToolPreInvokeResult
    assert HttpPreRequestResult is HttpPostRequestResult is HttpHeaderPayloadResult
    assert HttpAuthResolveUserResult(modified_payload={"email": "a"}).modified_payload == {"email": "a"}


def test_a_typed_result_validates_its_payload() -> None:
    replied = HttpPreRequestResult(modified_payload={"a": "b"}).modified_payload
    assert replied == HttpHeaderPayload({"a": "b"})
    changed = ToolPreInvokeResult(modified_payload={"name": "b"}).modified_payload
    assert changed == ToolPreInvokePayload(name="b")
    with pytest.raises(ValidationError):
        ToolPostInvokeResult(modified_payload=ToolPreInvokePayload(name="b"))


def test_tokens_are_masked_in_text_and_json() -> None:
    payload = IdentityPayload(raw_token="s3cret", headers={"A": "1"})
    assert isinstance(payload.raw_token, SecretStr)
    assert payload.raw_token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(payload) + payload.model_dump_json()
    assert payload.source == "bearer"
    assert DelegationPayload(target_name="pay", bearer_token="t").bearer_token.get_secret_value() == "t"


def test_a_delegated_token_stays_out_of_repr() -> None:
    result = DelegationResult(delegated_token="s3cret", forwarded_headers={"Authorization": "s3cret"})
    assert "s3cret" not in repr(result)
    assert result.delegated_token == "s3cret"
    assert result.delegation_update == DelegationExtension()


def test_identity_defaults() -> None:
    result = IdentityResult()
    assert (result.rejected, result.reject_status, result.reject_reason, result.raw_claims) == (False, 401, "", {})
    assert issubclass(IdentityResult, PluginPayload)
    config = AttenuationConfig(capabilities=["a"])
    assert not isinstance(config, PluginPayload)
    assert isinstance(config, BaseModel)
    with pytest.raises(ValidationError, match="frozen"):
        config.ttl_seconds = 1
    payload = DelegationPayload(target_name="pay", route_attenuation={"actions": ["read"]})
    assert (payload.target_type, payload.auth_enforced_by) == ("tool", "caller")
