"""Servers that are absent, die, hang or talk nonsense; clients that cancel, leave or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.proxy.servers import TIMEOUT_S, Command, plugins, proxied, raw_client
from isolated_environments import running, until_gone

BREAKING = [sys.executable, str(Path(__file__).with_name("breaking.py"))]
DENYING = """
plugins:
  - name: list
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_pre_invoke]
    config: {denied_tools: [forbidden]}
"""


@pytest.fixture
def behind(tmp_path: Path) -> Command:
    return proxied(BREAKING, plugins(tmp_path, DENYING))


def told(answer: dict[str, Any]) -> Any:
    return json.loads(answer["result"]["content"][0]["text"])


async def test_the_first_question_to_a_server_that_does_not_start_tells_why(tmp_path: Path) -> None:
    async with raw_client(proxied(["no-such-server"], plugins(tmp_path))) as client:
        error = (await client.shake_hands())["error"]
        assert error["code"] == -32000
        assert error["message"] == (
            "server `server`: cannot start `no-such-server`: No such file or directory; "
            "is it installed and on the PATH of this process?"
        )
        assert await client.leave() == 1


async def test_a_server_that_dies_ends_its_calls_and_then_the_proxy(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        await client.send({"id": 1, "method": "tools/call", "params": {"name": "hang"}})
        await client.send({"id": 2, "method": "tools/call", "params": {"name": "die"}})
        answers = [await client.answer(), await client.answer()]
        assert {answer["id"] for answer in answers} == {1, 2}
        for answer in answers:
            assert answer["error"]["code"] == -32000
            assert "exited with status 3; last lines on its standard error: out of memory" in answer["error"]["message"]
        with pytest.raises(EOFError):
            await client.receive()
        async with asyncio.timeout(TIMEOUT_S):
            assert await client.process.wait() == 1


async def test_a_server_that_hangs_is_told_to_stop_when_time_is_up(tmp_path: Path) -> None:
    command = proxied(BREAKING, plugins(tmp_path, DENYING), "--timeout", "0.3")
    async with raw_client(command) as client:
        await client.shake_hands()
        error = (await client.ask(1, "tools/call", name="hang"))["error"]
        assert error == {
            "code": -32001,
            "message": "server `server` did not answer `tools/call` within 0.3s; it was told to stop",
        }
        # On a busy machine time may be up for this question as well, which is then cancelled, too.
        async with asyncio.timeout(TIMEOUT_S):
            while "error" in (answer := await client.ask(2, "tools/call", name="heard")):
                pass
        heard = told(answer)["args"]["heard"]
        [call] = [each for each in heard if each["method"] == "tools/call"]
        cancelled = [each["params"]["requestId"] for each in heard if each["method"] == "notifications/cancelled"]
        assert cancelled.count(call["id"]) == 1
        assert await client.leave() == 0


async def test_a_cancelled_call_is_cancelled_at_the_server_and_not_answered(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        await client.send({"id": 1, "method": "tools/call", "params": {"name": "hang"}})
        # Answered after it, so the call has reached the server.
        await client.ask(2, "tools/call", name="other")
        await client.send({"method": "notifications/cancelled", "params": {"requestId": 1, "reason": "enough"}})
        heard = told(await client.ask(3, "tools/call", name="heard"))["args"]["heard"]
        [cancelled] = [each for each in heard if each["method"] == "notifications/cancelled"]
        [call] = [each for each in heard if each["method"] == "tools/call" and each["params"]["name"] == "hang"]
        assert cancelled["params"] == {"requestId": call["id"], "reason": "enough"}


async def test_a_denied_call_never_reaches_the_server(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        answer = await client.ask(1, "tools/call", name="forbidden", arguments={"secret": "hunter2"})
        assert answer["result"]["isError"] is True
        assert answer["result"]["_meta"]["cpex/violation"]["code"] == "TOOL_NOT_ALLOWED"
        heard = told(await client.ask(2, "tools/call", name="heard"))["args"]["heard"]
        assert "hunter2" not in json.dumps(heard)


async def test_answers_that_nobody_waits_for_go_nowhere(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        first = await client.ask(1, "tools/call", name="twice")
        assert first["result"]["content"][0]["text"] == "first"
        assert (await client.ask("1", "tools/call", name="other"))["id"] == "1"


async def test_texts_that_were_cut_inside_a_character_pass_as_they_are(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        result = (await client.ask(1, "tools/call", name="half", arguments={"a": "\udc00 cut"}))["result"]
        assert result == {"content": [{"type": "text", "text": "cut \ud83d"}], "args": {"a": "\udc00 cut"}}


async def test_a_large_message_passes_and_one_over_the_budget_of_plugins_is_refused(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        large = "x" * 900_000
        answer = await client.ask(1, "tools/call", name="other", arguments={"large": large})
        assert told(answer)["args"]["large"] == large
        error = (await client.ask(2, "tools/call", name="other", arguments={"large": large * 2}))["error"]
        assert error["code"] == -32603
        assert error["message"].startswith("too large for the plugins to judge: ")


async def test_noise_of_a_server_is_left_out(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        assert told(await client.ask(1, "tools/call", name="noise"))["name"] == "noise"
        assert client.others == []


async def test_an_answer_without_a_result_is_an_error(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        error = (await client.ask(1, "tools/call", name="no-result"))["error"]
        assert error["message"] == "server `server` answered with neither a result nor an error"


async def test_errors_of_a_server_and_fields_that_nobody_knows_pass_as_they_are(behind: Command) -> None:
    async with raw_client(behind) as client:
        assert (await client.shake_hands())["result"]["custom"] == [1]
        error = (await client.ask(1, "made/up", any=1))["error"]
        assert error == {"code": -32000, "message": "nothing else here", "data": {"deep": [1]}}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"this is no message", -32600),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a"}}]', -32600),
        (b'{"id": 1, "method": "tools/call", "params": {"name": "a"}}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "tools/call", "params": {"name": "a"}}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": ["tools/call"], "params": {"name": "a"}}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ["a"]}}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ["a"]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call"}', -32602),
    ],
)
async def test_what_does_not_fit_the_protocol_is_refused_and_not_forwarded(
    behind: Command, line: bytes, code: int
) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        client._stdin.write(line + b"\n")
        assert (await client.answer())["error"]["code"] == code
        heard = told(await client.ask(2, "tools/call", name="heard"))["args"]["heard"]
        assert [each["method"] for each in heard] == ["notifications/initialized"]


async def test_a_request_without_an_id_is_not_forwarded_as_a_notification(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        for method in ("tools/call", "resources/read", "tools/list", "tasks/result", "initialize", ["tools/call"]):
            await client.send({"method": method, "params": {"name": "forbidden", "arguments": {}}})
        await client.send({"method": "notifications/roots/list_changed"})
        heard = told(await client.ask(2, "tools/call", name="heard"))["args"]["heard"]
        assert [each["method"] for each in heard] == ["notifications/initialized", "notifications/roots/list_changed"]


async def test_unknown_methods_pass_and_the_log_never_goes_silent_about_them(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        for number in range(13):
            await client.ask(number, f"house/{number}")
        assert await client.leave() == 0
        assert client.process.stderr is not None
        said = (await client.process.stderr.read()).decode()
    assert said.count("pass, and no plugin has a say in them") == 10
    assert said.count("still more methods that the protocol does not know pass") == 1


async def test_an_id_that_is_under_way_cannot_be_used_again(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        await client.send({"id": 1, "method": "tools/call", "params": {"name": "hang"}})
        assert (await client.ask(1, "ping"))["error"]["message"] == "a request of this id is under way"


async def test_a_failing_plugin_stops_the_call_without_telling_its_content(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from cpex.framework import Plugin\n\n\nclass Failing(Plugin):\n"
        "    async def tool_pre_invoke(self, payload, context):\n"
        "        raise ValueError(f'cannot read {payload.args}')\n"
    )
    config = plugins(
        tmp_path,
        f"plugin_dirs: [{tmp_path}]\nplugins:\n"
        "  - {name: bad, kind: failing.Failing, mode: sequential, hooks: [tool_pre_invoke]}\n",
    )
    async with raw_client(proxied(BREAKING, config)) as client:
        await client.shake_hands()
        error = (await client.ask(1, "tools/call", name="other", arguments={"password": "hunter2"}))["error"]
        assert error == {
            "code": -32603,
            "message": "plugin `bad` failed, so the operation was refused; the proxy's log says more",
        }


async def test_no_child_is_left_behind_when_the_client_leaves(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        pid = told(await client.ask(1, "tools/call", name="child"))["args"]["pid"]
        assert running(pid)
        assert await client.leave() == 0
        await until_gone(pid)


async def test_no_child_is_left_behind_when_the_proxy_is_stopped(behind: Command) -> None:
    async with raw_client(behind) as client:
        await client.shake_hands()
        pid = told(await client.ask(1, "tools/call", name="child"))["args"]["pid"]
        await client.send({"id": 2, "method": "tools/call", "params": {"name": "hang"}})
        client.process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            assert await client.process.wait() == 0
        await until_gone(pid)
