"""The asking end: what it makes of what a server says, and when it asks again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from support import plugin, tool_payload

from cpex.framework import GlobalContext, PluginConfig, PluginContext, PluginError, PluginMode, PluginResult
from cpex.framework.clock import FixedClock, use_clock
from cpex.framework.external.grpc.client import GrpcExternalPlugin
from cpex.framework.external.mcp.client import ExternalPlugin
from cpex.framework.external.memory import MemoryExternalPlugin, MemoryLink
from cpex.framework.external.plugin import RemotePlugin
from cpex.framework.external.port import Link, LinkError
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.external.session import Attempts

SOCKET = {"path": "/nowhere"}


async def allow(payload: Any, context: Any) -> PluginResult[Any]:
    """Allow."""
    return PluginResult()


class ScriptedLink(MemoryLink):
    """A link that fails as it is told: at opening, or when it is asked."""

    def __init__(self, server: ExternalPluginServer) -> None:
        super().__init__(server)
        self.opened = 0
        self.refusals = 0
        self.says: dict[str, Any] = {}
        self.failures: list[LinkError] = []
        self.forms: list[str] = []

    async def open(self) -> None:
        """Fail while refusals are left."""
        self.opened += 1
        if self.refusals:
            self.refusals -= 1
            raise LinkError("refused", code="connect", sent=False)
        await super().open()

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """What the server says, changed."""
        return {
            key: value for key, value in {**await super().get_plugin_config(name), **self.says}.items() if value != "-"
        }

    async def exchange(self, frame: bytes) -> bytes:
        """Note the form; fail when told to."""
        self._fail("frame")
        return await super().exchange(frame)

    async def invoke_hook(self, *arguments: Any) -> dict[str, Any]:
        """The same in the plain form."""
        self._fail("plain")
        return await super().invoke_hook(*arguments)

    def _fail(self, form: str) -> None:
        self.forms.append(form)
        if self.failures:
            raise self.failures.pop(0)


class ScriptedPlugin(RemotePlugin):
    """A plugin behind such a link, whose pauses take no time."""

    def __init__(self, config: PluginConfig, link: ScriptedLink) -> None:
        super().__init__(config)
        self.link = link

    def _make_link(self) -> Link:
        return self.link

    def _address(self) -> str:
        return "there"

    def _first_attempts(self) -> Attempts:
        return Attempts(3, lambda failures: 0.0)

    def _later_attempts(self) -> Attempts:
        return Attempts(2, lambda failures: 0.0 if failures > 1 else 1.0 if self.link.refusals > 1 else 0.0)


async def remote(local: dict[str, Any] | None = None, **server: Any) -> ScriptedPlugin:
    """A plugin whose server is configured like that; not yet connected."""
    service = ExternalPluginServer(plugins=[plugin(allow, **server)])
    await service.initialize()
    config = PluginConfig.model_validate({"name": "p", "kind": "external", "unix_socket": SOCKET, **(local or {})})
    return ScriptedPlugin(config, ScriptedLink(service))


async def invoke(asked: RemotePlugin, **context: Any) -> PluginResult[Any]:
    """Call the tool hook."""
    known = PluginContext(global_context=GlobalContext(request_id="r"), **context)
    return await asked.invoke_hook("tool_pre_invoke", tool_payload(), known)


async def test_the_servers_configuration_is_taken_over() -> None:
    asked = await remote(mode="audit", priority=7, capabilities=["read_labels"], tags=["t"])
    await asked.initialize()
    config = asked.config
    assert (config.kind, config.mode, config.priority, config.hooks) == (
        "external",
        PluginMode.AUDIT,
        7,
        ["tool_pre_invoke"],
    )
    assert (config.capabilities, config.tags) == ({"read_labels"}, ["t"])


@pytest.mark.conformance("E8")
async def test_what_the_operator_wrote_here_wins_but_for_an_empty_list_of_hooks() -> None:
    asked = await remote({"mode": "transform", "priority": 100, "hooks": []}, mode="audit", priority=7)
    await asked.initialize()
    assert (asked.config.mode, asked.config.priority) == (PluginMode.TRANSFORM, 100)
    assert asked.config.hooks == ["tool_pre_invoke"]


async def test_mode_words_of_older_servers_are_understood() -> None:
    asked = await remote()
    asked.link.says = {"mode": "enforce_ignore_error", "on_error": "-", "cpex_wire": "-"}
    await asked.initialize()
    assert (asked.config.mode, asked.config.on_error) == ("sequential", "ignore")


@pytest.mark.parametrize("says", [{"hooks": 5}, {"mode": "sometimes"}, {"capabilities": ["fly"]}])
async def test_a_configuration_that_cannot_be_used_is_told(says: dict[str, Any]) -> None:
    asked = await remote()
    asked.link.says = says
    with pytest.raises(PluginError, match="the configuration that there sent cannot be used") as raised:
        await asked.initialize()
    assert (raised.value.error.code, asked.link.connected) == ("external_config", False)


async def test_a_plugin_that_the_server_does_not_know_is_told_at_once() -> None:
    asked = await remote({"name": "q"})
    with pytest.raises(
        PluginError, match="Unable to retrieve configuration for external plugin q from there"
    ) as raised:
        await asked.initialize()
    assert (raised.value.error.code, asked.link.opened, asked.link.connected) == ("external_unknown_plugin", 1, False)


@pytest.mark.conformance("D33")
@pytest.mark.parametrize(("says", "form"), [({}, "frame"), ({"cpex_wire": "-"}, "plain"), ({"cpex_wire": 3}, "plain")])
async def test_frames_go_only_to_a_server_that_said_it_knows_them(says: dict[str, Any], form: str) -> None:
    asked = await remote()
    asked.link.says = says
    await asked.initialize()
    await invoke(asked)
    assert asked.link.forms == [form]


@pytest.mark.conformance("E9")
async def test_a_server_is_asked_under_the_name_that_it_uses() -> None:
    asked = await remote({"name": "P"})
    asked.link.says = {"cpex_wire": "-"}
    await asked.initialize()
    assert (await invoke(asked)).continue_processing


async def test_connecting_is_tried_three_times() -> None:
    asked = await remote()
    asked.link.refusals = 3
    with pytest.raises(PluginError, match="connection failed after 3 attempts: refused") as raised:
        await asked.initialize()
    assert (raised.value.error.code, asked.link.opened) == ("external_connect", 3)


@pytest.mark.conformance("E5")
async def test_a_question_that_did_not_leave_is_asked_again_and_one_that_may_have_is_not() -> None:
    asked = await remote()
    await asked.initialize()
    asked.link.failures = [LinkError("gone", code="lost", sent=False)]
    assert (await invoke(asked)).continue_processing
    assert asked.link.forms == ["frame", "frame"]
    asked.link.failures = [LinkError("gone", code="lost", sent=True)]
    with pytest.raises(PluginError, match="external plugin p at there: gone"):
        await invoke(asked)
    assert asked.link.forms == ["frame"] * 3


async def test_an_absent_server_is_left_alone_for_a_while() -> None:
    clock = FixedClock(datetime(2024, 1, 1, tzinfo=UTC))
    asked = await remote()
    with use_clock(clock):
        await asked.initialize()
        await asked.link.close()
        asked.link.refusals = 10
        opened = asked.link.opened
        with pytest.raises(PluginError, match="Failed to reconnect after 2 attempts: refused"):
            await invoke(asked)
        with pytest.raises(PluginError, match=r"the next attempt is due in \d"):
            await invoke(asked)
        assert asked.link.opened == opened + 2
        asked.link.refusals = 0
        clock.advance(60)
        assert (await invoke(asked)).continue_processing


async def test_a_hook_that_nobody_registered_is_told() -> None:
    asked = await remote()
    await asked.initialize()
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    with pytest.raises(PluginError, match="Hook type 'nobody_knows' not registered"):
        await asked.invoke_hook("nobody_knows", tool_payload(), context)


@pytest.mark.parametrize(
    ("kind", "entry", "text"),
    [
        (ExternalPlugin, {"mcp": {"proto": "STDIO", "cmd": ["never", "started"]}}, "Plugin session not initialized"),
        (GrpcExternalPlugin, {"grpc": {"target": "localhost:1"}}, "gRPC stub not initialized"),
    ],
)
async def test_a_call_before_the_start_opens_nothing(
    kind: type[RemotePlugin], entry: dict[str, Any], text: str
) -> None:
    asked = kind(PluginConfig.model_validate({"name": "p", "kind": "external", **entry}))
    with pytest.raises(PluginError, match=rf"^{text}; await `initialize\(\)` first$"):
        await invoke(asked)
    assert not asked.connected


@pytest.mark.parametrize(
    ("named", "told"), [("other", "other"), ("P", "p"), ("", "p"), (None, "p"), (7, "p")], ids=repr
)
async def test_an_error_keeps_the_name_that_the_plugin_gave_it(named: object, told: str) -> None:
    asked = await remote()
    asked.link.says = {"cpex_wire": "-"}
    await asked.initialize()

    async def scripted(*arguments: Any) -> dict[str, Any]:
        return {"error": {"message": "bad", "plugin_name": named}}

    # The link is ours; what it answers is the point.
    asked.link.invoke_hook = scripted  # type: ignore[method-assign]
    with pytest.raises(PluginError, match="bad") as raised:
        await invoke(asked)
    assert raised.value.error.plugin_name == told


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (dict, "neither a result nor an error"),
        (lambda: {"result": {"continue_processing": "maybe"}}, "its result does not fit the hook"),
        (lambda: {"result": {"continue_processing": "false"}}, None),
        (lambda: {"error": {"message": "bad", "details": "no dict"}}, "bad"),
        (lambda: {"error": {}}, "the server gave no reason"),
        (lambda: {"result": {}, "error": {"message": "bad"}}, None),
    ],
)
async def test_answers_of_all_kinds_are_told_apart(answer: Callable[[], dict[str, Any]], text: str | None) -> None:
    asked = await remote()
    asked.link.says = {"cpex_wire": "-"}
    await asked.initialize()

    async def scripted(*arguments: Any) -> dict[str, Any]:
        return answer()

    # The link is ours; what it answers is the point.
    asked.link.invoke_hook = scripted  # type: ignore[method-assign]
    if text is None:
        result = await invoke(asked)
        assert result.continue_processing is (answer()["result"] == {})
    else:
        with pytest.raises(PluginError, match=text):
            await invoke(asked)


async def test_a_plugin_in_memory_can_be_shut_down_and_used_again() -> None:
    service = ExternalPluginServer(plugins=[plugin(allow)])
    await service.initialize()
    config = PluginConfig.model_validate({"name": "p", "kind": "external", "unix_socket": SOCKET})
    asked = MemoryExternalPlugin(config, service)
    await asked.initialize()
    await asked.shutdown()
    assert not asked.connected
    assert (await invoke(asked)).continue_processing
    await asked.shutdown()
    await asked.shutdown()
