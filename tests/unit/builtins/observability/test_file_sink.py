"""The file sink, seen through a manager and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.observability.file_sink import FileSinkPlugin
from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.pipeline import stepping


def file_sink(path: Path, **config: Any) -> dict[str, Any]:
    return {
        "name": "events",
        "kind": "file",
        "mode": "fire_and_forget",
        "hooks": ["tool_pre_invoke"],
        "config": {"path": str(path), "batch_interval_s": 0.01, "retry_delay_s": 0.001, "drain_s": 60, **config},
    }


async def call(manager: TenantPluginManager, count: int) -> None:
    for number in range(count):
        payload = ToolPreInvokePayload(name="search", args={"q": "ann@example.com"})
        await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=str(number)))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_decision_is_a_line_when_the_manager_has_shut_down(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "events.jsonl"
    async with running(file_sink(path, batch_interval_s=60, batch_max=7)) as manager:
        await call(manager, 50)
    assert [each["request_id"] for each in records(path)] == [str(number) for number in range(50)]
    assert {each["type"] for each in records(path)} == {"decision"}
    assert "ann@example.com" not in path.read_text()


async def test_attempts_are_written_when_they_are_wanted(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    config = file_sink(path, records=["attempt"], include_payload="full", payload_fields=["args.q"])
    async with running(config) as manager:
        await call(manager, 1)
    assert [each["payload"] for each in records(path)] == [{"args": {"q": "ann@example.com"}}]


async def test_a_file_that_cannot_be_written_costs_the_caller_nothing_and_is_gone_on_with_later(
    running: Any, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    async with running(file_sink(path, attempts=10_000)) as manager:
        path.unlink()
        path.mkdir()
        await call(manager, 3)
        await manager.executor.drain()
        path.rmdir()
    assert len(records(path)) == 3


async def test_a_file_that_stays_away_is_dropped_for_and_told(
    running: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    async with running(file_sink(path, attempts=2)) as manager:
        plugin = manager.get_plugin("events")
        path.unlink()
        path.mkdir()
        await call(manager, 3)
    assert isinstance(plugin, FileSinkPlugin)
    assert plugin.delivery.dropped == 3
    assert f"`{path}` cannot be written: Is a directory, after 2 attempts" in caplog.text


async def test_a_shutdown_that_is_cut_off_before_the_drain_is_over_drops_out_loud_and_closes_the_file(
    running: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The grace is no setting, and a busy machine must not look like a clean-up that hangs.
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", 60)
    path = tmp_path / "events.jsonl"
    async with running(file_sink(path, attempts=10_000, drain_s=60) | {"shutdown_timeout_s": 0.05}) as manager:
        plugin = manager.get_plugin("events")
        path.unlink()
        path.mkdir()
        await call(manager, 3)
    assert isinstance(plugin, FileSinkPlugin)
    assert (plugin.delivery.dropped, plugin._journal._fd) == (3, None)
    assert "the shutdown of the sink was cut off before its `drain_s` of 60 s were over" in caplog.text


async def test_a_full_file_is_set_aside(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with running(file_sink(path, rotate_bytes=2_000, rotate_keep=50, batch_max=1)) as manager:
        await call(manager, 20)
    found = [each for file in tmp_path.iterdir() for each in records(file)]
    assert sorted(int(each["request_id"]) for each in found) == list(range(20))
    assert len(list(tmp_path.iterdir())) > 3


async def test_a_path_that_cannot_be_written_stops_the_start(running: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be written: Is a directory; check the folder and rights"):
        async with running(file_sink(tmp_path)):
            pass


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        FileSinkPlugin(PluginConfig(name="a", kind="file", config={"pth": "x"}))
