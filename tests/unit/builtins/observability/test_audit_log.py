"""The audit log, seen through a manager and its file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability.audit_log import AuditLogPlugin
from cpex.builtins.observability.audit_verify import verify_audit_log
from cpex.framework import (
    AgentPreInvokePayload,
    GlobalContext,
    HttpHeaderPayload,
    HttpPreRequestPayload,
    PluginConfig,
    PluginError,
    PluginPayload,
    PromptPrehookPayload,
    ResourcePreFetchPayload,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
    UserContext,
    clock,
)
from cpex.framework.extensions import AgentExtension, Extensions
from cpex.framework.hooks.registry import get_hook_registry

CALL = ToolPreInvokePayload(name="search", args={"q": "mail ann@example.com", "token": "t0psecret"})


def audit(path: Path, mode: str = "fire_and_forget", **changes: Any) -> dict[str, Any]:
    settings = {"path": str(path), **changes.pop("config", {})}
    return {
        "name": "audit",
        "kind": "cpex.builtins.observability.audit_log.AuditLogPlugin",
        "mode": mode,
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "config": settings,
        **changes,
    }


def context(**changes: Any) -> GlobalContext:
    return GlobalContext(request_id="r1", user="ann", tenant_id="acme", metadata={"session_id": "s1"}, **changes)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def text(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.mark.parametrize("mode", ["fire_and_forget", "audit", "sequential", "transform", "concurrent"])
async def test_a_call_leaves_an_attempt_and_a_decision_in_any_mode(running: Any, log: Path, mode: str) -> None:
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))):
        async with running(audit(log, mode)) as manager:
            result, _ = await manager.invoke_hook("tool_pre_invoke", CALL, context())
    assert result.continue_processing
    found = {each["type"]: each for each in records(log)}
    assert found["attempt"] == {
        "seq": 1,
        "v": 1,
        "ts": "2030-01-01T00:00:00.000000Z",
        "type": "attempt",
        "hook": "tool_pre_invoke",
        "request_id": "r1",
        "session": "s1",
        "entity_type": "tool",
        "entity": "search",
        "user": "ann",
        "tenant": "acme",
        "server": None,
        "payload": {"name": "string", "args": {"q": "string", "token": "string"}, "headers": "null"},
        "prev": "0" * 64,
        "hash": found["attempt"]["hash"],
    }
    decision = found["decision"]
    assert (decision["allowed"], decision["violation"], decision["error"]) == (True, None, None)
    assert (decision["session"], decision["user"], decision["entity"]) == ("s1", "ann", "search")
    assert [(each["name"], each["mode"]) for each in decision["plugins"]] == [("audit", mode)]


async def test_without_settings_the_log_is_in_the_working_directory(
    running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = audit(tmp_path)
    del plugin["config"]
    async with running(plugin) as manager:
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
    assert len(records(tmp_path / "cpex-audit.jsonl")) == 2


async def test_by_default_no_value_of_a_payload_is_written(running: Any, log: Path) -> None:
    async with running(audit(log)) as manager:
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
    assert "ann@example.com" not in text(log)
    assert "t0psecret" not in text(log)


async def test_full_payloads_are_written_redacted_and_without_secrets(
    running: Any, redactor: dict[str, Any], log: Path
) -> None:
    async with running(audit(log, config={"include_payload": "full"}), redactor) as manager:
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
    (attempt,) = (each for each in records(log) if each["type"] == "attempt")
    assert attempt["payload"]["args"] == {"q": "mail [EMAIL-REDACTED]", "token": "**********"}


async def test_a_denied_call_is_written_redacted_too(
    running: Any, allow_list: dict[str, Any], redactor: dict[str, Any], log: Path
) -> None:
    denied = ToolPreInvokePayload(name="delete", args=dict(CALL.args or {}))
    async with running(audit(log, config={"include_payload": "full"}), allow_list, redactor) as manager:
        await manager.invoke_hook("tool_pre_invoke", denied, context())
    assert "ann@example.com" not in text(log)


@pytest.mark.parametrize("mode", ["audit", "fire_and_forget"])
async def test_a_denial_before_the_plugin_had_its_turn_is_on_record(
    running: Any, allow_list: dict[str, Any], log: Path, mode: str
) -> None:
    async with running(audit(log, mode), allow_list) as manager:
        await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="delete"), context())
    (decision,) = (each for each in records(log) if each["type"] == "decision")
    assert decision["allowed"] is False
    assert decision["violation"] == {
        "plugin": "allow",
        "code": "TOOL_NOT_ALLOWED",
        "reason": "Tool 'delete' not in allow list",
    }
    assert decision["plugins"][0]["effective_allow"] is False


async def test_conditions_restrict_decisions_as_they_restrict_attempts(
    running: Any, allow_list: dict[str, Any], log: Path
) -> None:
    plugin = audit(log, "audit", conditions=[{"tools": ["search"]}])
    async with running(plugin, allow_list) as manager:
        await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="delete"), context())
        assert records(log) == []
        await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="search"), context())
    assert {each["entity"] for each in records(log)} == {"search"}


@pytest.mark.parametrize(
    ("hook", "payload", "entity"),
    [
        ("tool_post_invoke", ToolPostInvokePayload(name="search", result=[1]), ("tool", "search")),
        ("prompt_pre_fetch", PromptPrehookPayload(prompt_id="greeting"), ("prompt", "greeting")),
        (
            "resource_pre_fetch",
            ResourcePreFetchPayload(uri="https://ann:pw@host/doc?token=t0psecret#x"),
            ("resource", "https://host/doc"),
        ),
        ("agent_pre_invoke", AgentPreInvokePayload(agent_id="planner", messages=[]), ("agent", "planner")),
    ],
)
async def test_the_entity_is_named_on_every_family_of_hooks(
    running: Any, log: Path, hook: str, payload: PluginPayload, entity: tuple[str, str]
) -> None:
    async with running(audit(log, hooks=[hook])) as manager:
        await manager.invoke_hook(hook, payload, context())
    assert {(each["entity_type"], each["entity"]) for each in records(log)} == {entity}
    assert "t0psecret" not in text(log)


# Headers in a payload are what is tested here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_headers_that_carry_credentials_are_masked(running: Any, log: Path) -> None:
    headers = HttpHeaderPayload({"Authorization": "Bearer t0psecret", "Accept": "*/*"})
    payload = HttpPreRequestPayload(path="/mcp?key=t0psecret", method="POST", headers=headers)
    fields = ["method", "headers"]
    plugin = audit(log, hooks=["http_pre_request"], config={"include_payload": "full", "payload_fields": fields})
    async with running(plugin) as manager:
        await manager.invoke_hook("http_pre_request", payload, context())
    (attempt,) = (each for each in records(log) if each["type"] == "attempt")
    assert attempt["entity"] == "/mcp"
    assert attempt["payload"] == {"method": "POST", "headers": {"Authorization": "**********", "Accept": "*/*"}}


def test_a_handler_is_bound_to_every_hook_that_the_framework_knows(log: Path) -> None:
    hooks = [str(getattr(each, "value", each)) for each in get_hook_registry().get_registered_hooks()]
    plugin = AuditLogPlugin(PluginConfig(name="a", kind="k", hooks=hooks))
    assert len(hooks) >= 12
    assert all(callable(getattr(plugin, hook)) for hook in hooks)


async def test_a_hook_that_nobody_knows_is_reported_instead_of_bound(running: Any, log: Path) -> None:
    with pytest.raises(RuntimeError, match="tool_pre_invok"):
        async with running(audit(log, hooks=["tool_pre_invok"])):
            pass


async def test_the_agent_extension_names_the_session_where_it_may_be_seen(running: Any, log: Path) -> None:
    seen, unseen = audit(log, capabilities=["read_agent"]), audit(log, name="other")
    async with running(seen, unseen) as manager:
        extensions = Extensions(agent=AgentExtension(session_id="agents-own"))
        await manager.invoke_hook("tool_pre_invoke", CALL, context(), extensions=extensions)
    attempts = [each["session"] for each in records(log) if each["type"] == "attempt"]
    assert sorted(attempts) == ["agents-own", "s1"]


async def test_the_authenticated_user_goes_before_what_the_request_says(running: Any, log: Path) -> None:
    async with running(audit(log, "audit")) as manager:
        await manager.invoke_hook(
            "tool_pre_invoke", CALL, context(user_context=UserContext(user_id="u-1", email="ann@example.com"))
        )
    assert records(log)[0]["user"] == "u-1"


async def test_a_payload_beyond_the_bound_is_told_by_its_outline(running: Any, log: Path) -> None:
    plugin = audit(log, config={"include_payload": "full", "max_payload_bytes": 100})
    async with running(plugin) as manager:
        await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="t", args={"q": "x" * 200}), context())
    (attempt,) = (each for each in records(log) if each["type"] == "attempt")
    assert attempt["payload"]["args"] == {"q": "string"}
    assert attempt["payload_omitted"] == "more than 100 bytes"


async def test_only_the_chosen_records_are_written(running: Any, log: Path) -> None:
    async with running(audit(log, config={"records": ["decision"], "include_payload": "none"})) as manager:
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
    assert [each["type"] for each in records(log)] == ["decision"]


async def test_a_path_that_cannot_be_written_stops_the_start(running: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as failure:
        async with running(audit(tmp_path)):
            pass
    assert (
        f"audit log `{tmp_path}` cannot be written: Is a directory; check the folder, its rights and free space"
        in str(failure.value)
    )


def make_unwritable(log: Path) -> None:
    log.unlink()
    log.mkdir()


def make_writable(log: Path) -> None:
    log.rmdir()


async def test_where_the_caller_waits_a_lost_record_is_a_failure_of_the_plugin(running: Any, log: Path) -> None:
    async with running(audit(log, "sequential")) as manager:
        make_unwritable(log)
        with pytest.raises(PluginError) as failure:
            await manager.invoke_hook("tool_pre_invoke", CALL, context())
    assert failure.value.error.code == "audit_unwritable"


async def test_in_the_background_lost_records_are_counted_logged_once_and_told_at_the_end(
    running: Any, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(audit(log)) as manager:
        make_unwritable(log)
        for _ in range(3):
            result, _ = await manager.invoke_hook("tool_pre_invoke", CALL, context())
            assert result.continue_processing
            await result.wait_for_background_tasks()
        plugin = manager.get_plugin("audit")
    assert isinstance(plugin, AuditLogPlugin)
    assert plugin.failures.count == 6
    first, last = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert "cannot be written: Is a directory" in first
    assert last == "Plugin 'audit': 6 failures in all, the last 5 of them not logged"


async def test_the_log_goes_on_when_the_path_can_be_written_again(running: Any, log: Path) -> None:
    async with running(audit(log, "sequential", on_error="ignore")) as manager:
        make_unwritable(log)
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
        make_writable(log)
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
    assert [each["type"] for each in records(log)].count("attempt") == 1


async def test_initialize_and_shutdown_may_be_called_twice(log: Path) -> None:
    plugin = AuditLogPlugin(PluginConfig(name="a", kind="k", hooks=["tool_pre_invoke"], config={"path": str(log)}))
    await plugin.shutdown()
    await plugin.initialize()
    await plugin.initialize()
    await plugin.shutdown()
    await plugin.shutdown()
    await plugin.initialize()
    await plugin.shutdown()
    assert text(log) == ""


async def test_a_file_that_another_process_has_locked_is_waited_for_off_the_loop(running: Any, log: Path) -> None:
    peer = Journal(log)
    peer.open()
    async with running(audit(log, "audit")) as manager:
        # A peer in the middle of an append; it goes on as soon as the loop is free.
        assert peer._lock(blocking=False)
        asyncio.get_running_loop().call_soon(peer._unlock)
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
        assert [each["type"] for each in records(log)] == ["attempt"]
    peer.close()


@pytest.mark.parametrize(("fsync", "least", "most"), [("always", 3, 6), ("interval", 2, 2), ("never", 0, 0)])
async def test_the_disk_is_asked_to_keep_records_as_often_as_configured(
    running: Any, log: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, least: int, most: int
) -> None:
    asked: list[int] = []
    really = os.fsync
    # What reached the disk shows only after a power failure, so the request for it is what can be watched.
    monkeypatch.setattr(os, "fsync", lambda fd: (asked.append(fd), really(fd)))
    async with running(audit(log, config={"fsync": fsync, "fsync_interval_s": 3600})) as manager:
        for _ in range(2):
            await manager.invoke_hook("tool_pre_invoke", CALL, context())
            # Or both calls may wait for the disk together, which is then asked once.
            await manager.executor.drain()
    assert least <= len(asked) <= most


async def test_values_that_may_not_be_redacted_yet_are_warned_of(
    running: Any, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(audit(log, "sequential", config={"include_payload": "full"})):
        pass
    assert "may see them before they are redacted" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pth": "x"}, "Extra inputs are not permitted"),
        ({"include_payload": "some"}, "Input should be 'none', 'keys' or 'full'"),
        ({"payload_fields": ["args.q"]}, "`payload_fields` chooses among values: set `include_payload: full` with it"),
        ({"rotate_bytes": 0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AuditLogPlugin(PluginConfig(name="a", kind="k", config=settings))


HOST = """
import asyncio, sys
from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.models import Config

async def main():
    plugin = PluginConfig(
        name="audit", kind="cpex.builtins.observability.audit_log.AuditLogPlugin", mode="sequential",
        hooks=["tool_pre_invoke"], config={"path": sys.argv[1], "include_payload": "full"},
    )
    manager = TenantPluginManager(Config(plugins=[plugin]))
    await manager.initialize()
    for number in range(100_000):
        payload = ToolPreInvokePayload(name="search", args={"q": "x" * (number * 997 % 20_000)})
        await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=str(number)))
        print(number, flush=True)

asyncio.run(main())
"""


def run_and_kill(log: Path, stop_after: int) -> list[str]:
    """The request ids of the calls that a host let through before it was killed."""
    host = subprocess.Popen([sys.executable, "-c", HOST, str(log)], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    passed = [host.stdout.readline().strip() for _ in range(stop_after)]
    host.send_signal(signal.SIGKILL)
    passed += host.stdout.read().split()
    host.stdout.close()
    assert host.wait() == -signal.SIGKILL
    return passed


async def test_every_operation_that_a_killed_host_let_through_is_on_record(running: Any, log: Path) -> None:
    allowed: list[str] = []
    for stop_after in (1, 17):
        allowed += run_and_kill(log, stop_after)
    async with running(audit(log)) as manager:
        assert isinstance(manager, TenantPluginManager)
        await manager.invoke_hook("tool_pre_invoke", CALL, context())
    attempts = [each["request_id"] for each in records(log) if each["type"] == "attempt"]
    assert attempts[-1] == "r1"
    assert verify_audit_log(log).holds
    remaining = list(attempts)
    for request in allowed:
        remaining.remove(request)
