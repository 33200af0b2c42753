"""A recorded stream of events through the four-layer pipeline, as a host would send it.

The layers are either the equivalent plugins beside this file, which run on both releases, or the ones that ship with
this one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from cpex.framework import GlobalContext, PluginConfig, PluginMode, TenantPluginManager, get_hook_registry
from cpex.framework.models import Config

DRAIN_EVERY = 50
"""Events after which the host waits for its background plugins."""
BUDGET = 4_000
"""Tokens a conversation; the shipped stream and longer ones have conversations that spend it."""

_PRE, _POST = "tool_pre_invoke", "tool_post_invoke"
_LAYERS = (
    ("token_budget", "security.TokenBudgetPlugin", "TokenBudget", "sequential", 10, [_PRE]),
    ("content_policy", "security.ContentPolicyPlugin", "ContentPolicy", "sequential", 20, [_PRE]),
    ("pii_redactor", "privacy.PIIRedactionPlugin", "PiiRedactor", "transform", 30, [_PRE, _POST]),
    ("audit_logger", "observability.AuditLogPlugin", "AuditLog", "fire_and_forget", 100, [_PRE, _POST]),
)
"""Name, kind as shipped, equivalent class, mode, priority and hooks of each layer."""


def layered_config(builtin: bool, audit_path: Path) -> Config:
    """The four layers, with the same budget and audit file whichever plugins stand in them."""
    settings: dict[str, dict[str, Any]] = {
        "token_budget": {"budget": BUDGET},
        "audit_logger": {"path": str(audit_path), **({"include_payload": "full"} if builtin else {})},
    }
    return Config(
        plugins=[
            PluginConfig(
                name=name,
                kind=shipped if builtin else f"layered_plugins.{equivalent}",
                mode=PluginMode(mode),
                priority=priority,
                hooks=hooks,
                config=settings.get(name),
            )
            for name, shipped, equivalent, mode, priority, hooks in _LAYERS
        ]
    )


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a file in the form that `cpex run` reads."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def run_stream(events: list[dict[str, Any]], *, builtin: bool) -> dict[str, int]:
    """Send every event through a new pipeline.

    Returns:
        `{"ns": elapsed, "events": number, "denied": number, "changed": number}`. Start and stop of the pipeline and the
        reading of the file are not in the time; making payloads and contexts and waiting for background plugins is.
    """
    with tempfile.TemporaryDirectory() as folder:
        manager = TenantPluginManager(layered_config(builtin, Path(folder, "audit.jsonl")))
        await manager.initialize()
        try:
            return await _timed(manager, events)
        finally:
            await manager.shutdown()


async def _timed(manager: TenantPluginManager, events: list[dict[str, Any]]) -> dict[str, int]:
    payload_type = get_hook_registry().get_payload_type
    tables: dict[str, Any] = {}
    waiting: list[Any] = []
    denied = changed = 0
    begun = perf_counter_ns()
    for number, event in enumerate(events):
        hook, context = event["hook"], event["context"]
        request = context["request_id"]
        asked = GlobalContext(metadata={"session_id": event["session"]}, **context)
        result, tables[request] = await manager.invoke_hook(
            hook, payload_type(hook)(**event["payload"]), asked, local_contexts=tables.pop(request, None)
        )
        denied += not result.continue_processing
        changed += result.modified_payload is not None
        waiting.append(result)
        if hook == _POST:
            del tables[request]
        if number % DRAIN_EVERY == DRAIN_EVERY - 1:
            await _drain(waiting)
    await _drain(waiting)
    return {"ns": perf_counter_ns() - begun, "events": len(events), "denied": denied, "changed": changed}


async def _drain(waiting: list[Any]) -> None:
    for result in waiting:
        await result.wait_for_background_tasks()
    waiting.clear()
