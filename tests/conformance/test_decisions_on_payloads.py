"""Decisions about what plugins are handed: the payload belongs to the host."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from typing import Any

import orjson
import pytest
import yaml
from pydantic import Field
from support import allow, call, deny, manager_of, plugin, record_of, tool_payload

from cpex.framework import (
    GlobalContext,
    HookPayloadPolicy,
    PluginPayload,
    PluginResult,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.manager import PayloadSizeError

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")
POLICY = {"tool_pre_invoke": HookPayloadPolicy(writable_fields=frozenset({"args"}))}


async def edits_deep(payload: Any, context: Any) -> PluginResult[Any]:
    payload.args["x"]["y"] = 2
    context.global_context.state["host"]["deep"] = 2
    return PluginResult()


async def edits_and_returns(payload: Any, context: Any) -> PluginResult[Any]:
    payload.args["x"]["y"] = 2
    return PluginResult(modified_payload=payload)


@pytest.mark.conformance("D11")
@pytest.mark.parametrize("policies", [None, POLICY], ids=["no_policy", "policy"])
@pytest.mark.parametrize("mode", MODES)
async def test_an_edit_in_place_reaches_nobody(mode: str, policies: Any) -> None:
    seen = []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.model_dump())
        return PluginResult()

    payload, value = tool_payload(), {"deep": 1}
    request = GlobalContext(request_id="r", state={"host": value})
    manager = manager_of(
        plugin(edits_deep, mode=mode, priority=1), plugin(looks, "looks", mode=mode), hook_policies=policies
    )
    result, _ = await call(manager, payload, request)
    await result.wait_for_background_tasks()
    assert (payload, result.modified_payload) == (tool_payload(), None)
    assert (seen[0]["args"], value) == ({"x": {"y": 1}}, {"deep": 1})


@pytest.mark.conformance("D11")
@pytest.mark.parametrize("mode", MODES)
async def test_a_payload_that_a_plugin_keeps_does_not_follow_the_hosts(mode: str) -> None:
    kept = []

    async def keeps(payload: Any, context: Any) -> PluginResult[Any]:
        kept.append(payload)
        return PluginResult()

    payload = tool_payload()
    result, _ = await call(manager_of(plugin(keeps, "a", mode=mode), plugin(keeps, "b", mode=mode)), payload)
    await result.wait_for_background_tasks()
    payload.args["x"]["y"] = kept[0].args["x"]["y"] + 1
    kept[0].args["new"] = 1
    assert (payload.args, kept[1].args) == ({"x": {"y": 2}}, {"x": {"y": 1}})


@pytest.mark.conformance("D11")
async def test_what_cannot_be_copied_is_shared_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    lock, seen = threading.Lock(), []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.args["lock"])
        return PluginResult()

    manager = manager_of(plugin(looks, "a"), plugin(looks, "b"))
    await call(manager, tool_payload(lock=lock))
    assert [each is lock for each in seen] == [True, True]
    # One for the type, however often it is met; an earlier test of this process may have caused it.
    assert sum("lock" in each.getMessage() for each in caplog.records if each.levelname == "WARNING") <= 1


@pytest.mark.conformance("D12")
@pytest.mark.parametrize("policies", [None, POLICY], ids=["no_policy", "policy"])
async def test_an_edited_view_that_comes_back_is_a_change(policies: Any) -> None:
    payload = tool_payload()
    result, _ = await call(manager_of(plugin(edits_and_returns), hook_policies=policies), payload)
    assert result.modified_payload.args == {"x": {"y": 2}}
    assert payload == tool_payload()


@pytest.mark.conformance("D12")
async def test_a_policy_filters_an_edited_view_like_any_other_change() -> None:
    closed = {"tool_pre_invoke": HookPayloadPolicy(writable_fields=frozenset({"name"}))}
    result, _ = await call(manager_of(plugin(edits_and_returns), hook_policies=closed))
    assert result.modified_payload is None


@pytest.mark.conformance("D13")
async def test_every_reader_sees_the_contents_of_what_is_handed_out() -> None:
    found: list[Any] = []

    async def reads(payload: Any, context: Any) -> PluginResult[Any]:
        args = payload.args
        found.append([type(args), type(args["list"])])
        found.append([pickle.loads(pickle.dumps(args)), yaml.safe_load(yaml.safe_dump(args)), copy.deepcopy(args)])
        found.append([orjson.loads(orjson.dumps(args)), payload.model_dump()["args"], {**args}])
        return PluginResult()

    content = {"list": [{"a": 1}], "text": "b"}
    await call(manager_of(plugin(reads)), tool_payload(**content))
    assert found == [[dict, list], [content] * 3, [content] * 3]


@pytest.mark.conformance("D13a")
async def test_editing_what_was_validated_again_does_not_reach_the_host() -> None:
    async def validates_again(payload: Any, context: Any) -> PluginResult[Any]:
        again = ToolPreInvokePayload(name="other", args=payload.args)
        again.args["x"]["y"] = 2
        ToolPostInvokePayload.model_validate({"name": "other", "result": payload.args}).result["x"]["y"] = 3
        return PluginResult()

    payload = tool_payload()
    await call(manager_of(plugin(validates_again)), payload)
    assert payload == tool_payload()


class Counted:
    """Knows how often it was copied."""

    copies = 0

    def __deepcopy__(self, memo: Any) -> Counted:
        type(self).copies += 1
        return self


class First(Counted): ...


class Second(Counted): ...


class TwoFields(PluginPayload):
    first: dict[str, Any] = Field(default_factory=dict)
    second: dict[str, Any] = Field(default_factory=dict)


@pytest.mark.conformance("D14")
async def test_only_what_is_touched_is_copied() -> None:
    async def touches_first(payload: Any, context: Any) -> PluginResult[Any]:
        payload.first["key"]
        return PluginResult()

    payload = TwoFields(first={"key": First()}, second={"key": Second()})
    serial = [plugin(allow, mode, mode=mode) for mode in MODES[:4]]
    await call(manager_of(*serial), payload)
    assert (First.copies, Second.copies) == (0, 0)
    await call(manager_of(plugin(touches_first), *serial), payload)
    assert (First.copies > 0, Second.copies) == (True, 0)


@pytest.mark.conformance("D15")
async def test_content_is_measured_in_bytes_and_per_plugin_too() -> None:
    # The text's 120 bytes, those of `t` and `text`, and 8 for the absent headers.
    payload = tool_payload(text="ä" * 60)
    with pytest.raises(PayloadSizeError, match=r"^Payload size 133 exceeds limit of 100 bytes$"):
        await call(manager_of(plugin(allow), max_payload_bytes=100), payload)
    small = plugin(allow, "small", max_content_size=100, on_error="ignore")
    result, _ = await call(manager_of(small, plugin(allow, "large")), payload)
    assert [each.status for each in result.executions] == ["error", "completed"]
    assert "exceeds limit of 100 bytes" in (record_of(result.executions, "small").reason or "")


async def redacts(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload=payload.model_copy(update={"args": {"secret": "***"}}))


@pytest.mark.conformance("D16")
@pytest.mark.parametrize("decision", [allow, deny])
async def test_the_background_sees_the_final_payload_also_of_a_denied_call(decision: Any) -> None:
    seen = []

    async def logs(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.args)
        return PluginResult()

    manager = manager_of(
        plugin(decision), plugin(redacts, "redacts", mode="transform"), plugin(logs, "logs", mode="fire_and_forget")
    )
    result, _ = await call(manager, tool_payload(secret="s3cret"))
    await result.wait_for_background_tasks()
    assert seen == [{"secret": "***"}]


@pytest.mark.conformance("D16")
async def test_where_redaction_fails_the_background_is_skipped_and_counted() -> None:
    ran = []

    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise RuntimeError("cannot redact")

    async def logs(payload: Any, context: Any) -> PluginResult[Any]:
        ran.append(payload)
        return PluginResult()

    manager = manager_of(
        plugin(deny), plugin(breaks, "redacts", mode="transform"), plugin(logs, "logs", mode="fire_and_forget")
    )
    result, _ = await call(manager)
    await result.wait_for_background_tasks()
    assert (ran, manager.executor.background.skipped) == ([], 1)
    assert record_of(result.executions, "logs").status == "skipped"


@pytest.mark.conformance("D16")
async def test_the_background_is_bounded_and_drained(caplog: pytest.LogCaptureFixture) -> None:
    go_on, ended = asyncio.Event(), []

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        await go_on.wait()
        ended.append(context.get_state("seen"))
        return PluginResult()

    manager = manager_of(plugin(waits, mode="fire_and_forget"), background_limit=2)
    for _ in range(4):
        result, _ = await call(manager)
    assert record_of(result.executions).status == "skipped"
    assert manager.executor.background.refused == 2
    assert sum("Background limit of 2" in each.getMessage() for each in caplog.records) == 1
    go_on.set()
    await manager.shutdown()
    assert len(ended) == 2


@pytest.mark.conformance("D16")
async def test_a_background_plugin_goes_on_with_its_state_of_earlier_hooks() -> None:
    seen = []

    async def remembers(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(context.get_state("before"))
        context.set_state("before", "kept")
        return PluginResult()

    manager = manager_of(plugin(remembers, mode="fire_and_forget"))
    result, table = await call(manager)
    await result.wait_for_background_tasks()
    result, _ = await call(manager, local_contexts=table)
    await result.wait_for_background_tasks()
    assert seen == [None, "kept"]
