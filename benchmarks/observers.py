"""What does watching cost? A hook call with one guard, alone and with each observability plugin behind it.

Usage: `python -m benchmarks.observers [--seconds S]`. Each row is the median of rounds taken in turns, in microseconds
of one core per hook call, the work in the background included; the caller waits for less.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.models import Config

ROUNDS = 5
BURST = 200
"""Calls between two waits for the background."""
HOOKS = ["tool_pre_invoke"]
GUARD = {
    "name": "guard",
    "kind": "security.ToolAllowListPlugin",
    "hooks": HOOKS,
    "config": {"allowed_tools": ["search"]},
}


def observers(folder: Path) -> dict[str, dict[str, Any] | None]:
    """The rows: a title, and kind and settings of the plugin that watches."""
    return {
        "guard alone": None,
        "MetricsPlugin": {"kind": "observability.MetricsPlugin"},
        "LatencyTrackerPlugin": {"kind": "observability.LatencyTrackerPlugin"},
        "RequestTracerPlugin, no SDK": {"kind": "observability.RequestTracerPlugin"},
        "AuditLogPlugin": {"kind": "observability.AuditLogPlugin", "config": {"path": str(folder / "audit")}},
        "FileSinkPlugin": {"kind": "observability.FileSinkPlugin", "config": {"path": str(folder / "events")}},
    }


async def cost(entry: dict[str, Any] | None, seconds: float) -> float:
    """Microseconds of processor time per call."""
    plugins = [GUARD] if entry is None else [GUARD, {"name": "o", "mode": "fire_and_forget", "hooks": HOOKS, **entry}]
    config = Config(plugins=[PluginConfig.model_validate(each) for each in plugins], background_limit=10 * BURST)
    manager = TenantPluginManager(config)
    await manager.initialize()
    payload, count, started = ToolPreInvokePayload(name="search", args={"q": "x" * 100}), 0, time.process_time()
    try:
        while not count or time.process_time() - started < seconds:
            for number in range(BURST):
                await manager.invoke_hook(HOOKS[0], payload, GlobalContext(request_id=str(number)))
            await manager.executor.drain()
            count += BURST
        return (time.process_time() - started) / count * 1e6
    finally:
        await manager.shutdown()


async def measure(seconds: float) -> dict[str, float]:
    """Microseconds per call of every row: the median of rounds that take turns."""
    rounds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            for title, entry in observers(Path(folder)).items():
                rounds.setdefault(title, []).append(await cost(entry, seconds))
    return {title: statistics.median(found) for title, found in rounds.items()}


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="processor time of a round of one row")
    options = parser.parse_args(words)
    found = asyncio.run(measure(options.seconds))
    alone = next(iter(found.values()))
    width = max(map(len, found))
    print(f"{'':{width}}  µs/call  more than the guard alone")
    for title, each in found.items():
        print(f"{title:{width}}  {each:7.1f}  {each - alone:25.1f}")
    series = sum(len(metric.samples) for metric in REGISTRY.collect())
    print(f"{series} samples in the registry, Python {sys.version.split()[0]}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
