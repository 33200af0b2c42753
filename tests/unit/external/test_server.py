"""The serving end: what it says of its plugins, and that every question gets an answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import FunctionPlugin, denial, plugin

from cpex.framework import GlobalContext, PluginContext, PluginResult, PluginViolation, PluginViolationError
from cpex.framework.errors import ConfigFileNotFound
from cpex.framework.external import wire
from cpex.framework.external.frames import Answer, Question
from cpex.framework.external.port import plain_answer
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.models.result import PluginErrorModel

CONTEXT = {"global_context": {"request_id": "r"}}
PAYLOAD = {"name": "t", "args": {"x": 1}}


async def served(handler: Any, **config: Any) -> ExternalPluginServer:
    """A started server with one plugin around a handler."""
    server = ExternalPluginServer(plugins=[plugin(handler, **config)])
    await server.initialize()
    return server


async def rewrite(payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
    """Rewrite one argument and leave state behind."""
    context.set_state("k", {1})
    return PluginResult(modified_payload=payload.model_copy(update={"args": {"x": {2}}}))


async def test_an_answer_in_the_plain_form_is_the_whole_dump_and_the_context() -> None:
    server = await served(rewrite)
    answer = await server.invoke_hook("tool_pre_invoke", "p", PAYLOAD, CONTEXT)
    assert sorted(answer) == ["context", "plugin_name", "result"]
    assert answer["result"]["modified_payload"] == {"name": "t", "args": {"x": [2]}, "headers": None}
    assert sorted(answer["result"]) == [
        "continue_processing",
        "denial_metadata",
        "executions",
        "http_headers",
        "metadata",
        "modified_extensions",
        "modified_payload",
        "retry_delay_ms",
        "violation",
    ]
    assert answer["context"]["state"] == {"k": [1]}


async def test_a_context_that_is_given_as_an_object_comes_back_as_that_object() -> None:
    server = await served(rewrite)
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    assert (await server.invoke_hook("tool_pre_invoke", "p", PAYLOAD, context))["context"] is context


@pytest.mark.parametrize("answer", [PluginResult(), PluginResult(continue_processing=True)], ids=["empty", "plain"])
@pytest.mark.parametrize("name", ["p", 'p"ü\\'])
async def test_the_commonest_answer_is_written_alike_and_known_at_sight(answer: PluginResult[Any], name: str) -> None:
    frame = Answer.frame("1a", name, answer)
    text = json.dumps({"id": "1a", "plugin": name, "result": {"continue_processing": True}}, ensure_ascii=False)
    assert frame.decode() == text.replace('": ', '":').replace(", ", ",")
    known, read = Answer.read(frame, "1a", name), Answer.read(frame, "1a")
    assert known == read == Answer(name, {"continue_processing": True})
    with pytest.raises(wire.WireError, match="id of another question"):
        Answer.read(frame, "1b", name)


async def test_whatever_else_an_answer_says_is_in_its_frame() -> None:
    for answer in (denial(), PluginResult(metadata={"a": 1}), PluginResult(continue_processing=True, retry_delay_ms=3)):
        frame = Answer.frame("1a", "p", answer)
        expected = {"continue_processing": answer.continue_processing}
        told = Answer.read(frame, "1a", "p").result
        assert told is not None
        assert told | expected == told
        assert told != {"continue_processing": True}
    assert Answer.read(Answer.frame("1a", "p", PluginResult(), {"state": {"k": 1}}), "1a", "p").context == {
        "state": {"k": 1}
    }


async def test_a_context_without_state_is_not_sent_back() -> None:
    async def allow(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult()

    assert "context" not in await (await served(allow)).invoke_hook("tool_pre_invoke", "p", PAYLOAD, CONTEXT)


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit", "concurrent", "fire_and_forget"])
@pytest.mark.parametrize("on_error", ["fail", "ignore", "disable"])
async def test_neither_mode_nor_on_error_of_the_server_hide_a_denial_or_a_failure(mode: str, on_error: str) -> None:
    async def deny(payload: Any, context: Any) -> PluginResult[Any]:
        if payload.name == "broken":
            raise ValueError("broken")
        return denial(metadata={"m": 1}, http_headers={"h": "v"}, retry_delay_ms=5)

    server = await served(deny, mode=mode, on_error=on_error)
    result = (await server.invoke_hook("tool_pre_invoke", "p", PAYLOAD, CONTEXT))["result"]
    assert (result["continue_processing"], result["violation"]["code"]) == (False, "NO")
    assert (result["metadata"], result["http_headers"], result["retry_delay_ms"]) == ({"m": 1}, {"h": "v"}, 5)
    answer = await server.invoke_hook("tool_pre_invoke", "p", {"name": "broken"}, CONTEXT)
    assert answer["error"] == PluginErrorModel(message="ValueError('broken')", plugin_name="p", code="", details={})
    assert plain_answer(answer)["error"] == {
        "message": "ValueError('broken')",
        "plugin_name": "p",
        "code": "",
        "details": {},
        "mcp_error_code": -32603,
    }


async def test_a_raised_denial_is_an_answer_and_not_an_error() -> None:
    async def deny(payload: Any, context: Any) -> PluginResult[Any]:
        raise PluginViolationError("no", PluginViolation(reason="r", description="d", code="C"))

    result = (await (await served(deny)).invoke_hook("tool_pre_invoke", "p", PAYLOAD, CONTEXT))["result"]
    assert (result["continue_processing"], result["violation"]["code"]) == (False, "C")


async def never(payload: Any, context: Any) -> PluginResult[Any]:
    """Must not be reached."""
    raise AssertionError("called")


@pytest.mark.parametrize(
    ("hook", "name", "payload", "context", "text"),
    [
        (
            "tool_pre_invoke",
            "q",
            PAYLOAD,
            CONTEXT,
            "Unable to find tool_pre_invoke for plugin q; plugins of this",
        ),
        ("tool_post_invoke", "p", PAYLOAD, CONTEXT, "Unable to find tool_post_invoke for plugin p"),
        ("tool_pre_invoke", "p", {"args": "hunter2"}, CONTEXT, "ToolPreInvokePayload: name: Field required"),
        ("tool_pre_invoke", "p", PAYLOAD, {"state": {}}, "PluginContext: global_context: Field required"),
    ],
)
async def test_a_wrong_question_is_answered_with_what_is_wrong(
    hook: str, name: str, payload: Any, context: Any, text: str
) -> None:
    answer = await (await served(never)).invoke_hook(hook, name, payload, context)
    assert plain_answer(answer)["error"]["message"].startswith(text)
    # As in release 0.1: the model of a failure, and the fields of what could not be read.
    assert isinstance(answer["error"], dict if "Field required" in text else PluginErrorModel)
    assert "hunter2" not in str(answer)


async def test_a_server_that_was_not_initialized_says_so() -> None:
    server = ExternalPluginServer(plugins=[plugin(never)])
    answer = await server.invoke_hook("tool_pre_invoke", "p", PAYLOAD, CONTEXT)
    assert "Plugin server not initialized" in answer["error"].message


class Starts(FunctionPlugin):
    """Logs its life; begins to start when it is let, and fails where it should."""

    def __init__(self, name: str, log: list[str], *, fails: bool = False) -> None:
        super().__init__(plugin(never, name).config, never)
        self.log, self.fails = log, fails
        self.begun, self.let = asyncio.Event(), asyncio.Event()

    async def initialize(self) -> None:
        self.begun.set()
        await self.let.wait()
        self.log.append(f"start {self.name}")
        if self.fails:
            raise ConnectionError("nobody there")

    async def shutdown(self) -> None:
        self.log.append(f"stop {self.name}")


async def test_tasks_that_start_one_server_at_once_start_it_once() -> None:
    log: list[str] = []
    starts = Starts("p", log)
    server = ExternalPluginServer(plugins=[starts])
    starting = [asyncio.create_task(server.initialize()) for _ in range(3)]
    await starts.begun.wait()
    stopping = asyncio.create_task(server.shutdown())
    await asyncio.sleep(0)  # one turn, in which it begins to wait for the start
    assert not server.running
    starts.let.set()
    assert await asyncio.gather(*starting, stopping) == [True, True, True, None]
    assert log == ["start p", "stop p"]
    assert not server.running


async def test_a_start_that_fails_or_is_cancelled_leaves_nothing_running_and_may_be_tried_again() -> None:
    log: list[str] = []
    first, second = Starts("a", log), Starts("b", log, fails=True)
    first.let.set()
    server = ExternalPluginServer(plugins=[first, second])
    starting = asyncio.create_task(server.initialize())
    await second.begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert log == ["start a", "stop b", "stop a"]
    second.let.set()
    log.clear()
    with pytest.raises(ConnectionError):
        await server.initialize()
    assert log == ["start a", "start b", "stop b", "stop a"]
    second.fails = False
    assert await server.initialize()
    assert server.running


@pytest.mark.conformance("E9")
async def test_names_are_compared_without_case_for_configurations_and_for_hooks() -> None:
    server = await served(rewrite, name="Guard")
    described = await server.get_plugin_config("guard")
    assert described is not None
    assert described["name"] == "Guard"
    assert "result" in await server.invoke_hook("tool_pre_invoke", "GUARD", PAYLOAD, CONTEXT)
    assert await server.get_plugin_config("other") is None


async def test_a_handlers_time_is_limited() -> None:

    async def hang(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.Event().wait()
        raise AssertionError

    answer = await (await served(hang, timeout_s=0.05)).invoke_hook("tool_pre_invoke", "p", PAYLOAD, CONTEXT)
    assert (answer["error"].message, answer["error"].code) == (
        "Plugin p exceeded 0.05s timeout",
        "plugin_timeout",
    )


@pytest.mark.parametrize("frame", [b"", b"{}", b"[]", b'{"id": 1}', b"\xff", b'{"$cpex": "set", "v": [1]}'])
async def test_a_frame_that_is_no_question_is_answered(frame: bytes) -> None:
    answer = wire.loads(await (await served(never)).exchange(frame))
    assert answer["error"]["code"] == "external_value"


async def test_a_frame_brings_back_only_the_maps_that_changed() -> None:
    async def remember(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context.metadata["seen"] = {1}
        return PluginResult()

    context = PluginContext(global_context=GlobalContext(request_id="r", state={"big": [1]}), state={"own": 1})
    frame = Question.frame(
        "7", "tool_pre_invoke", "p", ToolPreInvokePayload(name="t"), context, None, None, reveal=False
    )
    answer = wire.loads(await (await served(remember)).exchange(frame))
    assert answer["context"] == {"global_context": {"metadata": {"seen": {1}}}}
    assert Answer.read(await (await served(remember)).exchange(frame), "7").plugin == "p"


async def test_an_answer_to_another_question_is_refused() -> None:
    frame = Answer.frame("8", "p", PluginResult())
    with pytest.raises(wire.WireError, match="carries the id of another question"):
        Answer.read(frame, "7")


CONFIG = {
    "plugins": [
        {
            "name": "guard",
            "kind": "security.ContentPolicyPlugin",
            "hooks": ["tool_pre_invoke"],
            "capabilities": ["read_headers", "read_inbound_credentials"],
            "config": {
                "words": ["x"],
                "webhook": {"api_key": "hunter2", "url": "u"},
                "from_env": "{{ env.SECRET_URL }}",
            },
        },
        {"name": "off", "kind": "a.B", "mode": "disabled"},
    ]
}


@pytest.fixture
def config_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration with settings that are nobody else's business."""
    monkeypatch.setenv("SECRET_URL", "https://hunter2.example")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return str(path)


@pytest.mark.conformance("E14")
async def test_settings_are_told_as_they_stand_in_the_file_and_secrets_are_not(config_path: str) -> None:
    described = await ExternalPluginServer(config_path).get_plugin_configs()
    assert [each["name"] for each in described] == ["guard", "off"]
    assert described[0]["config"] == {
        "words": ["x"],
        "webhook": {"api_key": "**********", "url": "u"},
        "from_env": "{{ env.SECRET_URL }}",
    }
    assert "hunter2" not in str(described)


@pytest.mark.conformance("D17b.wire")
async def test_capabilities_that_older_hosts_refuse_are_told_where_they_do_not_look(config_path: str) -> None:
    described = await ExternalPluginServer(config_path).get_plugin_config("guard")
    assert described is not None
    assert described["capabilities"] == ["read_headers"]
    assert described["cpex_wire"]["capabilities"] == ["read_inbound_credentials"]


async def test_a_missing_configuration_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigFileNotFound):
        ExternalPluginServer(str(tmp_path / "none.yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLUGINS_CONFIG_PATH", raising=False)
    with pytest.raises(ConfigFileNotFound, match=r"resources/plugins/config\.yaml"):
        ExternalPluginServer()
