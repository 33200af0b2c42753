"""The plugins' pages say what the plugins do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import noted
from http_receivers import receiving
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel

from cpex.builtins.observability._metric_set import Shape, metric_set
from cpex.builtins.observability.audit_log import AuditLogPlugin, AuditLogSettings
from cpex.builtins.observability.file_sink import FileSinkPlugin, FileSinkSettings
from cpex.builtins.observability.latency_tracker import LatencyTrackerPlugin, LatencyTrackerSettings
from cpex.builtins.observability.metrics import MetricsPlugin, MetricsSettings
from cpex.builtins.observability.request_tracer import RequestTracerPlugin, RequestTracerSettings
from cpex.builtins.observability.webhook import WebhookPlugin, WebhookSettings
from cpex.framework import GlobalContext, PluginConfig, ToolPostInvokePayload, ToolPreInvokePayload, clock

PAGES = Path(__file__).parents[4] / "docs" / "plugins"
PLUGINS = [
    ("audit_log", AuditLogPlugin, AuditLogSettings),
    ("request_tracer", RequestTracerPlugin, RequestTracerSettings),
    ("metrics", MetricsPlugin, MetricsSettings),
    ("latency_tracker", LatencyTrackerPlugin, LatencyTrackerSettings),
    ("webhook", WebhookPlugin, WebhookSettings),
    ("file_sink", FileSinkPlugin, FileSinkSettings),
]
SHORT_NAMES = {"webhook": WebhookPlugin, "file": FileSinkPlugin}


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def block(name: str, language: str) -> str:
    found = re.search(rf"^```{language}(?: [^\n]*)?\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def configured(name: str) -> dict[str, Any]:
    entry: dict[str, Any] = yaml.safe_load(block(name, "yaml"))["plugins"][0]
    return entry


def rows(name: str, heading: str) -> list[list[str]]:
    section = page(name).split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize(("name", "plugin", "settings"), PLUGINS)
def test_the_example_is_a_valid_configuration(name: str, plugin: Any, settings: type[BaseModel]) -> None:
    entry = configured(name)
    assert entry["kind"] == f"observability.{plugin.__name__}" or SHORT_NAMES[entry["kind"]] is plugin
    plugin(PluginConfig.model_validate(entry))


@pytest.mark.parametrize(("name", "plugin", "settings"), PLUGINS)
def test_every_setting_is_described_with_its_default(name: str, plugin: Any, settings: type[BaseModel]) -> None:
    described = {row[0].strip("`"): row[1].strip("`") for row in rows(name, "Settings")}
    assert list(described) == list(settings.model_fields)
    for setting, field in settings.model_fields.items():
        if isinstance(field.default, bool | int | float | str | Path):
            assert described[setting] == str(field.default).replace("True", "true").replace("False", "false")


def test_every_metric_is_described_with_its_labels() -> None:
    registry = CollectorRegistry()
    metric_set(Shape("cpex", (1.0,), False, 1), registry)
    described = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows("metrics", "Metrics")}
    made = {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.documentation
        for metric in registry.collect()
    }
    assert set(described) == set(made)
    assert described["cpex_plugin_turns_missed_total"] == ["plugin", "hook", "status"]


def test_every_plugin_is_known_by_its_names() -> None:
    known = {each.name: each.load() for each in entry_points(group="cpex.plugins")}
    assert all(known[f"observability.{plugin.__name__}"] is plugin for _, plugin, _ in PLUGINS)
    assert {name: known[name] for name in SHORT_NAMES} == SHORT_NAMES


def test_heavy_libraries_are_not_loaded_before_a_plugin_runs() -> None:
    program = (
        "import sys, cpex.builtins.observability.audit_log, cpex.builtins.observability.metrics, "
        "cpex.builtins.observability.request_tracer, cpex.builtins.observability.latency_tracker, "
        "cpex.builtins.observability.webhook, cpex.builtins.observability.file_sink; "
        "print([name for name in ('opentelemetry', 'prometheus_client', 'httpx2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_the_audit_page_shows_what_is_written(
    running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = configured("audit_log") | {"kind": f"{AuditLogPlugin.__module__}.AuditLogPlugin"}
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, 12, tzinfo=UTC))):
        async with running(entry) as manager:
            await manager.invoke_hook(
                "tool_pre_invoke",
                ToolPreInvokePayload(name="search", args={"q": "weather"}),
                GlobalContext(request_id="r1", user="ann", metadata={"session_id": "s1"}),
            )
    (sample,) = noted("docs/plugins/audit_log.md")
    shown = {each["type"]: each for each in map(json.loads, sample.splitlines())}
    written = {each["type"]: each for each in map(json.loads, lines(tmp_path / "cpex-audit.jsonl"))}
    # A duration is real time, whatever the clock says.
    for decisions in (written, shown):
        assert decisions["decision"].pop("duration_us") > 0
        assert decisions["decision"]["plugins"][0].pop("duration_us") > 0
        # And with it the hash.
        assert len(decisions["decision"].pop("hash")) == 64
    assert written == shown


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
PATIENT = {"drain_s": 60}
"""What a page leaves to its default, and a busy machine may need more of."""
ANN = GlobalContext(request_id="r1", user="ann")


def without_durations(record: dict[str, Any]) -> dict[str, Any]:
    """A decision but for what is real time, whatever the clock says."""
    plugins = [{key: value for key, value in each.items() if key != "duration_us"} for each in record["plugins"]]
    return {**record, "plugins": plugins, "duration_us": None}


async def test_the_page_of_the_webhook_shows_what_arrives(running: Any, allow_list: dict[str, Any]) -> None:
    entry = configured("webhook")
    with receiving() as receiver, clock.use_clock(clock.FixedClock(NOON)):
        entry["config"] |= {"url": receiver.url, **PATIENT, "timeout_s": 60}
        async with running(allow_list, entry) as manager:
            await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="delete"), ANN)
        arrived = receiver.next()
    shown = json.loads(noted("docs/plugins/webhook.md")[0])
    assert list(map(without_durations, arrived.events)) == list(map(without_durations, shown["events"]))
    assert arrived.headers["webhook-signature"].startswith("v1,")


async def test_the_page_of_the_file_sink_shows_what_is_written(
    running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with clock.use_clock(clock.FixedClock(NOON)):
        entry = configured("file_sink")
        entry["config"] |= PATIENT
        async with running(entry) as manager:
            await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="search"), ANN)
    (written,) = map(json.loads, lines(tmp_path / "cpex-events.jsonl"))
    assert without_durations(written) == without_durations(json.loads(noted("docs/plugins/file_sink.md")[0]))


async def test_the_page_of_the_latency_tracker_shows_what_is_scraped(running: Any, monkeypatch: Any) -> None:
    registry = CollectorRegistry()
    # A registry of the test's own, in the place of the process's.
    monkeypatch.setattr("prometheus_client.REGISTRY", registry)
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(configured("latency_tracker")) as manager:
            await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="search"), ANN)
            await manager.executor.drain()
            now.advance(180)
            await manager.invoke_hook("tool_post_invoke", ToolPostInvokePayload(name="search", result="ok"), ANN)
    assert set(noted("docs/plugins/latency_tracker.md")[0].splitlines()) <= set(
        generate_latest(registry).decode().splitlines()
    )


def test_the_page_of_the_tracer_shows_what_its_program_prints(tmp_path: Path) -> None:
    # Written as JSON, which is YAML.
    plugin = {"name": "allow", "kind": "security.ToolAllowListPlugin", "hooks": ["tool_pre_invoke"]}
    config = {"plugins": [plugin | {"config": {"allowed_tools": ["search"]}}]}
    (tmp_path / "plugins.yaml").write_text(json.dumps(config))
    program, shown = noted("docs/plugins/request_tracer.md")
    (tmp_path / "live.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "live.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (shown, "")


def test_the_audit_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    log = tmp_path / "cpex-audit.jsonl"
    log.write_text(block("audit_log", "json"))
    sound, changed = noted("docs/plugins/audit_log.md")
    assert run(sound, tmp_path) == 0
    log.write_text(log.read_text().replace('"user":"ann"', '"user":"bob"', 1))
    assert run(changed, tmp_path) == 6


def run(transcript: str, folder: Path) -> int:
    """Run the command of a transcript and compare what it prints; returns how it ended."""
    command, _, shown = transcript.partition("\n")
    words = command.removeprefix("$ cpex ").split()
    done = subprocess.run(
        [sys.executable, "-m", "cpex.tools.cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (shown, "")
    return done.returncode


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
