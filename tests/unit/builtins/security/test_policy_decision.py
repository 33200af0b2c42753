"""The plugin that asks policy engines, in a real pipeline against servers that speak as they do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT, blocks
from pdp_servers import Engine, PdpServer, Reply, authzen, opa, running

from cpex.builtins.security.policy_decision import PolicyDecisionPlugin
from cpex.framework import PluginError, UserContext
from cpex.framework.errors import PluginLoadError
from cpex.testing import PluginHarness, assert_allowed, assert_denied

Serve = Callable[[Engine], PdpServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda engine: stack.enter_context(running(engine))


def no_shell(facts: Any) -> Any:
    shell = facts.get("tool") == "shell" and "operator" not in facts["subject"].get("roles", [])
    return {"allow": True, "deny": [f"no shell for {facts['subject']['id']}"] if shell else [], "ttl": 5}


def harness(server: PdpServer, **settings: Any) -> PluginHarness:
    path = "/v1/data/authz" if settings.get("engine", "opa") == "opa" else "/access/v1/evaluation"
    config = {"engine": "opa", "endpoint": server.url + path, "timeout_ms": 20_000, **settings}
    return PluginHarness(PolicyDecisionPlugin, name="policy", config=config)


async def test_what_the_engine_denies_is_denied_with_its_reason(serve: Serve) -> None:
    async with harness(serve(opa({"authz": no_shell}))) as running:
        running.new_request(user="ann")
        violation = assert_denied(await running.call("tool_pre_invoke", name="shell"), "POLICY_DENIED", by="policy")
        assert (violation.reason, violation.http_status_code) == ("no shell for ann", 403)
        assert violation.description == "The policy does not allow tool_pre_invoke of tool 'shell'."
        assert violation.details == {"target": "shell", "kind": "tool"}
        result = assert_allowed(await running.call("tool_pre_invoke", name="search"))
        context = {"target": "search", "allow": True, "deny": [], "ttl": 5}
        assert result.metadata == {"policy": {"context": [context]}}


async def test_the_engine_is_told_who_does_what_in_which_conversation(serve: Serve) -> None:
    server = serve(opa({"authz": lambda facts: True}))
    async with harness(server, headers={"Authorization": "Bearer t"}) as running:
        user = UserContext(user_id="ann", roles=["dev"], groups=[], teams=["x"])
        running.new_request(user_context=user, session="s1", tenant_id="acme", server_id="srv")
        await running.call("tool_pre_invoke", name="search", args={"q": 1})
        await running.call("resource_pre_fetch", uri="file:///a")
    assert [asked.body["input"] for asked in server.asked] == [
        {
            "subject": {"type": "user", "id": "ann", "roles": ["dev"], "teams": ["x"]},
            "action": "tool_pre_invoke",
            "tool": "search",
            "args": {"q": 1},
            "session": {"id": "s1"},
            "tenant_id": "acme",
            "server_id": "srv",
        },
        {
            "subject": {"type": "user", "id": "ann", "roles": ["dev"], "teams": ["x"]},
            "action": "resource_pre_fetch",
            "tool": {"type": "resource", "id": "file:///a"},
            "session": {"id": "s1"},
            "tenant_id": "acme",
            "server_id": "srv",
        },
    ]
    assert server.asked[0].headers["Authorization"] == "Bearer t"


async def test_an_engine_that_speaks_authzen_is_asked_alike(serve: Serve) -> None:
    server = serve(authzen(lambda request: request["resource"] == {"type": "prompt", "id": "p"}))
    async with harness(server, engine="authzen", send_args=False) as running:
        assert_allowed(await running.call("prompt_pre_fetch", prompt_id="p", args={"a": "b"}))
        assert_denied(await running.call("prompt_pre_fetch", prompt_id="q"), reason="Denied by policy")
    assert "context" not in server.asked[0].body


async def test_each_tool_of_a_message_is_a_question(serve: Serve) -> None:
    calls = [
        {"content_type": "tool_call", "content": {"tool_call_id": name, "name": name, "arguments": {}}}
        for name in ("search", "shell")
    ]
    server = serve(opa({"authz": lambda facts: facts["tool"] != "shell"}))
    async with harness(server) as running:
        message = {"role": "assistant", "content": calls}
        assert_denied(await running.call("cmf.llm_output", message=message), "POLICY_DENIED")
    assert [asked.body["input"]["tool"] for asked in server.asked] == ["search", "shell"]


async def test_without_an_answer_the_call_fails_or_is_let_pass_aloud(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(lambda path, body: Reply(status=503))
    async with harness(server) as running:
        with pytest.raises(PluginError, match="OPA HTTP 503"):
            await running.call("tool_pre_invoke")
    async with harness(server, fail_open=True) as running:
        assert_allowed(await running.call("tool_pre_invoke"))
    assert "let pass because the resolver fails open" in caplog.text


async def test_arguments_that_are_no_json_fail_the_call(serve: Serve) -> None:
    server = serve(opa({"authz": lambda facts: True}))
    async with harness(server) as running:
        with pytest.raises(PluginError, match="OPA bad input"):
            await running.call("tool_pre_invoke", args={"x": {1, 2}})
    assert server.asked == []


async def test_a_decision_is_kept_for_its_time(serve: Serve) -> None:
    server = serve(opa({"authz": lambda facts: True}))
    async with harness(server, cache_ttl_s=60) as running:
        for seconds in (0, 59, 2):
            running.clock.advance(seconds)
            assert_allowed(await running.call("tool_pre_invoke"))
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "opa"},
        {"engine": "cedar", "endpoint": "http://h/x"},
        {"engine": "opa", "endpoint": "http://127.0.0.1/x"},
        {"engine": "opa", "endpoint": "http://h/{0}"},
        {"engine": "opa", "endpoint": "http://h/x", "timeout": 3},
    ],
)
async def test_settings_that_make_no_sense_stop_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(PluginLoadError):
        await PluginHarness(PolicyDecisionPlugin, config=settings).__aenter__()


def test_the_example_of_the_page_prints_what_the_page_says(serve: Serve, tmp_path: Path) -> None:
    parts = blocks("plugins/policy_decision.md")
    (tmp_path / "plugins.yaml").write_text(parts["plugins.yaml"])
    (tmp_path / "main.py").write_text(parts["main.py"])
    variables = {"OPA_URL": serve(opa({"cpex/authz": no_shell})).url, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, parts["main.out"]), done.stderr
