"""Dashboard and alerts use metrics that exist, with labels that they have; the page tells of every alert."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from doc_blocks import ROOT, fences, is_whole, noted
from prometheus_client import CollectorRegistry

from cpex.builtins.observability._metric_set import Shape, metric_set
from cpex.builtins.observability.latency_tracker import LatencyTrackerPlugin
from cpex.builtins.observability.metrics import MetricsPlugin
from cpex.framework import PluginConfig
from cpex.framework.loader.config import ConfigLoader

FOLDER = ROOT / "docs" / "operating"
PAGE = (FOLDER / "metrics.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
HISTOGRAM = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """`{name of a series: labels}` of all that the plugins export."""
    registry = CollectorRegistry()
    metric_set(Shape("cpex", (1.0,), False, 1), registry)
    tracker = LatencyTrackerPlugin(PluginConfig(name="t", kind="k"), registry=registry)
    asyncio.run(tracker.initialize())
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        names = {
            "counter": [f"{metric.name}_total"],
            "histogram": [metric.name + end for end in HISTOGRAM],
        }.get(metric.type, [metric.name])
        found |= dict.fromkeys(names, LABELS.get(metric.name, set()) | {"instance"})
    return found


def described() -> dict[str, set[str]]:
    """Labels by metric, as the plugin's page has them; another test holds that page to the code."""
    page = (ROOT / "docs" / "plugins" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(cpex_\w+)` \| ([^|]*) \|", page, re.MULTILINE)
    labels = {name.removesuffix("_total"): set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}
    for name, found in labels.items():
        if name.endswith("_seconds"):
            found.add("le")
    return labels | {"cpex_operation_duration_seconds": {"operation", "name", "outcome", "le"}}


LABELS = described()


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)


def series_in(expression: str) -> set[str]:
    return set(re.findall(r"\bcpex_\w+", expression))


def labels_in(expression: str) -> set[str]:
    grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", expression))
    matched = ",".join(re.sub(r'"[^"]*"', "", each) for each in re.findall(r"\{([^}]*)\}", expression))
    return set(re.findall(r"[a-z_]+", f"{grouped},{matched}"))


@pytest.mark.parametrize(("title", "expression"), list(expressions()), ids=lambda value: value[:30])
def test_panels_and_alerts_ask_for_series_that_are_exported(
    title: str, expression: str, exported: dict[str, set[str]]
) -> None:
    series = series_in(expression)
    assert series
    assert series <= set(exported)
    assert labels_in(expression) <= set.intersection(*(exported[name] for name in series))


def test_every_metric_has_a_panel(exported: dict[str, set[str]]) -> None:
    shown = {
        name for panel in DASHBOARD["panels"] for each in panel.get("targets", ()) for name in series_in(each["expr"])
    }
    stem = re.compile(r"_(bucket|sum|count)\Z")
    assert {stem.sub("", name) for name in exported} == {stem.sub("", name) for name in shown}


def test_the_dashboard_can_be_imported_with_any_data_source() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}
    assert sources == {"${datasource}"}
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = {name for _, expression in expressions() for name in re.findall(r"\$(\w+)", expression)}
    assert used - {"__rate_interval"} <= variables
    # Panels stand side by side in 24 columns, and none lies on another.
    cells = [
        (column, line)
        for panel in panels
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24


def test_the_page_tells_what_to_do_at_every_alert_and_names_panels_that_exist() -> None:
    told = re.findall(r"^\| `(Cpex\w+)` \|", PAGE, re.MULTILINE)
    assert told == [rule["alert"] for rule in RULES]
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    rows = re.findall(r"^\| [^|]+\? \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert rows
    for cell in rows:
        assert cell in titles or all(any(title.startswith(part) for title in titles) for part in cell.split(", ")), cell


def test_the_configuration_of_the_page_can_be_started() -> None:
    first = next(fence.code for fence in fences(PAGE) if is_whole(fence.code))
    (second,) = noted("docs/operating/metrics.md")
    loaded = ConfigLoader.load_text(first, file="page").config
    metrics, latency = loaded.plugins or []
    MetricsPlugin(metrics)
    LatencyTrackerPlugin(latency)
    (job,) = yaml.safe_load(second)["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"localhost:{(metrics.config or {})['port']}"]}]


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert [link for link in links if not (FOLDER / link).exists()] == []
