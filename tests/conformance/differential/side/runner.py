"""Acts scenarios out with whichever `cpex` this interpreter has: one JSON document a line in, one a line out.

A scenario is `{"plugins", "calls", "policies", "default_policy", "raises", "context", "extensions", "timeout",
"carry", "from_file"}`; `scenarios.py` of the folder above makes them. The answer is `{"start": failure or null,
"calls": [...]}`, or `{"broken": text}` when the scenario itself could not be acted out.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import scripted
from plain import plain

import cpex.framework.hooks.identity
import cpex.framework.hooks.message
from cpex.framework import (
    GlobalContext,
    HookPayloadPolicy,
    PluginViolationError,
    TenantPluginManager,
    get_hook_registry,
)
from cpex.framework.extensions import Extensions
from cpex.framework.models import Config

_RECORD_FIELDS = (
    "plugin_name",
    "plugin_kind",
    "hook_name",
    "mode",
    "status",
    "requested_allow",
    "effective_allow",
    "matched",
    "applied",
    "payload_modified",
    "extensions_modified",
    "reason",
    "error_code",
    "config_keys",
)
_VIOLATION_FIELDS = ("plugin_name", "reason", "description", "code", "details", "http_status_code")


async def act(scenario: dict[str, Any]) -> dict[str, Any]:
    """Start a manager, make the calls, and tell what came of each."""
    manager = _manager(scenario)
    try:
        await manager.initialize()
    # Whatever stops the start is an outcome to compare.
    except Exception as error:
        return {"start": {"type": type(error).__name__, "message": str(error)}, "calls": []}
    context = GlobalContext(**copy.deepcopy(scenario["context"]))
    given = scenario["extensions"]
    extensions = Extensions.model_validate(given) if given is not None else None
    outcomes = []
    table: Any = None
    for call in scenario["calls"]:
        outcome, returned = await _call(manager, scenario, call, context, table, extensions)
        outcomes.append(outcome)
        if not scenario["carry"] or outcome["error"] is not None:
            table = returned
        elif table or returned is not None:
            table = {**(table or {}), **(returned or {})}
    await manager.shutdown()
    return {"start": None, "calls": outcomes}


def _manager(scenario: dict[str, Any]) -> TenantPluginManager:
    document = {"plugins": [_entry(plugin) for plugin in scenario["plugins"]]}
    policies = {hook: HookPayloadPolicy(frozenset(fields)) for hook, fields in (scenario["policies"] or {}).items()}
    settings: dict[str, Any] = {
        "timeout": scenario["timeout"],
        "hook_policies": policies or None,
        "default_hook_policy": scenario["default_policy"],
    }
    if not scenario["from_file"]:
        return TenantPluginManager(Config.model_validate(document), **settings)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        # JSON is YAML.
        file.write(json.dumps(document, indent=1))
        file.flush()
        return TenantPluginManager(file.name, **settings)


def _entry(plugin: dict[str, Any]) -> dict[str, Any]:
    settings = {"turns": plugin["turns"], "three": plugin["three"]}
    kept = ("name", "mode", "priority", "on_error", "conditions", "capabilities")
    entry = {
        **{key: plugin[key] for key in kept},
        "kind": "scripted.ScriptedPlugin",
        "hooks": list(plugin["turns"]),
        "config": settings,
    }
    # Copied, so that no two plugins share a part of their settings.
    return copy.deepcopy(entry)


async def _call(
    manager: TenantPluginManager,
    scenario: dict[str, Any],
    call: dict[str, Any],
    context: GlobalContext,
    table: Any,
    extensions: Any,
) -> tuple[dict[str, Any], Any]:
    hook = call["hook"]
    payload = get_hook_registry().json_to_payload(hook, copy.deepcopy(call["payload"]))
    scripted.JOURNAL.clear()
    scripted.LATE.clear()
    outcome: dict[str, Any] = {"result": None, "error": None, "records": [], "background": []}
    returned: Any = None
    result: Any = None
    try:
        result, returned = await manager.invoke_hook(
            hook_type=hook,
            payload=payload,
            global_context=context,
            local_contexts=table,
            violations_as_exceptions=scenario["raises"],
            extensions=extensions,
        )
    # Whatever a call raises is an outcome to compare.
    except Exception as error:
        outcome["error"] = _error(error)
        outcome["records"] = _records(getattr(error, "executions", None))
    during = len(scripted.JOURNAL)
    _write_late(context)
    if result is not None:
        outcome["background"] = [_model(error) for error in await result.wait_for_background_tasks()]
        outcome["result"] = _result(result)
        outcome["records"] = _records(result.executions)
    outcome["seen"] = [dict(note) for note in scripted.JOURNAL[:during]]
    outcome["seen_after"] = [dict(note) for note in scripted.JOURNAL[during:]]
    outcome["table"] = _table(manager, scenario, returned)
    outcome["context"] = plain(context)
    outcome["host_payload"] = plain(payload)
    outcome["host_extensions"] = plain(extensions)
    return outcome, returned


def _write_late(context: GlobalContext) -> None:
    """Make the changes that plugins left to us: those of the first to end the call and of all that ended before it."""
    ends = next((index for index, each in enumerate(scripted.LATE) if each["ends"]), len(scripted.LATE))
    for left in sorted(scripted.LATE[: ends + 1], key=lambda each: (each["priority"], each["plugin"])):
        for write in left["writes"]:
            scripted.write_down(context, None, write)


def _result(result: Any) -> dict[str, Any]:
    return {
        "continue_processing": result.continue_processing,
        "modified_payload": plain(result.modified_payload),
        "payload_type": type(result.modified_payload).__name__,
        "modified_extensions": plain(result.modified_extensions),
        "violation": _violation(result.violation),
        "metadata": plain(result.metadata),
        "retry_delay_ms": result.retry_delay_ms,
        "http_headers": plain(result.http_headers),
        "denial_metadata": plain(result.denial_metadata),
    }


def _violation(violation: Any) -> Any:
    return None if violation is None else {name: plain(getattr(violation, name)) for name in _VIOLATION_FIELDS}


def _model(error: Any) -> dict[str, Any]:
    return {"message": error.message, "plugin_name": error.plugin_name}


def _error(error: Exception) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "cause": _cause(error)}
    if (model := getattr(error, "error", None)) is not None:
        told |= {"plugin_name": model.plugin_name, "code": model.code, "details": plain(model.details)}
    if isinstance(error, PluginViolationError):
        outcome = error.denial_outcome
        told["violation"] = _violation(error.violation)
        told["outcome"] = None
        if outcome is not None:
            execution = outcome.execution
            told["outcome"] = {
                "plugin_name": execution.plugin_name,
                "status": execution.status,
                "violation_code": outcome.violation_code,
                "http_status_code": outcome.http_status_code,
                "metadata": plain(dict(outcome.metadata)),
            }
    return told


def _cause(error: Exception) -> str | None:
    return type(error.__cause__).__name__ if error.__cause__ is not None else None


def _records(records: Any) -> list[dict[str, Any]]:
    return [{name: plain(getattr(record, name)) for name in _RECORD_FIELDS} for record in records or []]


def _table(manager: TenantPluginManager, scenario: dict[str, Any], table: Any) -> dict[str, Any] | None:
    """`{plugin: its context}`: keys of a table are opaque and differ from process to process."""
    if table is None:
        return None
    told = {}
    for plugin in scenario["plugins"]:
        ref = manager._registry.get_plugin(plugin["name"])
        entry = next((table[key] for key in table if ref is not None and key.endswith(ref.uuid)), None)
        if entry is not None:
            told[plugin["name"]] = {
                "own": plain(entry.state),
                "own_metadata": plain(entry.metadata),
                "state": plain(entry.global_context.state),
                "metadata": plain(entry.global_context.metadata),
            }
    return told


def main() -> None:
    """Answer until the input ends."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    print(json.dumps({"framework": str(Path(cpex.framework.__file__).parent)}), flush=True)
    for line in sys.stdin:
        try:
            answer = asyncio.run(act(json.loads(line)))
        # A scenario that cannot be acted out must not end the run; the other side tells the same or it shows.
        except Exception:
            answer = {"broken": traceback.format_exc(limit=-3)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
