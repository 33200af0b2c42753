"""A plugin that does what its settings say, and notes what it saw. It knows only names that both packages publish.

Settings: `{"turns": {hook: turn}, "three": bool}`. A turn is what the plugin does when that hook is called:

- `guard`: conditions that it judges itself, on what it is handed; when none holds it notes `passed_over` and is done
- `looks`: whether it notes what it is handed; one that does not look touches nothing it is not told to touch
- `yields`: how often it gives way to other tasks before it goes on
- `edits`: changes of the payload, in place: `{"path": [...], "do": word, "key": ..., "value": ...}`
- `edits_on`: `view`, or `copy` to spare the object that was handed over
- `writes`: changes of shared and own state: `{"where": word, "do": word, "key": ..., "value": ...}`
- `writes_late`: whether those of shared state are left to the runner, which makes them after the call, from `LATE`
- `answer`: `allow`, `deny`, or one of the ways to fail in `_FAILURES` and `_FOREIGN`
- `change`: what it returns as modified payload: `{"how": word, ...}`, see `_changed`; `edited` is
  like `view`, but nothing unless there was an edit; `aside` puts a reply into the
  result's metadata instead, under `reply:<plugin>`
- `extensions`: what it returns as modified extensions: `{"custom": {...}, "labels": [...], "environment": ...}`
- `typed`: whether it answers with the hook's own result class
- `result`: further fields of its result
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from guard import holds
from plain import TOMBSTONE, plain

from cpex.framework import (
    Plugin,
    PluginConfig,
    PluginError,
    PluginErrorModel,
    PluginResult,
    PluginViolation,
    PluginViolationError,
    ResourcePreFetchPayload,
    get_hook_registry,
)
from cpex.framework.extensions import Extensions, RequestExtension

JOURNAL: list[dict[str, Any]] = []
"""What plugins saw, in the order in which they were called."""

VIOLATION = {"reason": "because", "description": "it is so", "code": "NO"}


LATE: list[dict[str, Any]] = []
"""What plugins left to the runner, in the order in which they ended: `{"plugin", "priority", "writes", "ends"}`."""

SHARED = ("state", "metadata")


def _named(name: str, message: str) -> Exception:
    """An exception that looks like one of that name."""
    exception: Exception = type(name, (Exception,), {})(message)
    return exception


def _foreign(kind: str) -> Callable[[str], Exception]:
    return lambda name: _named("ForeignResult", f"plugin {name} returned {kind}; expected a PluginResult")


_FAILURES: dict[str, Callable[[str], Exception]] = {
    "raise": lambda name: ValueError(f"broken {name}"),
    "raise_timeout": lambda _: TimeoutError("too slow"),
    "raise_like_timeout": lambda _: _named("TimeoutError", "too slow"),
    "raise_plugin_error": lambda name: PluginError(
        PluginErrorModel(message="my own", plugin_name=name, code="own", details={"a": 1})
    ),
    "raise_violation": lambda _: PluginViolationError("stopped", violation=PluginViolation(**VIOLATION)),
    "raise_violation_bare": lambda _: PluginViolationError("stopped"),
    **{f"raise_foreign_{kind}": _foreign(kind) for kind in ("NoneType", "dict", "str")},
}
_FOREIGN: dict[str, Any] = {"none": None, "a_dict": {"continue_processing": False}, "a_text": "yes"}


class ScriptedPlugin(Plugin):
    """Does what its settings say, on every hook that it is configured for."""

    def __init__(self, config: PluginConfig) -> None:
        super().__init__(config)
        settings = config.config or {}
        for hook in config.hooks:
            setattr(self, hook, self._handler(hook, settings["turns"][hook], settings["three"]))

    def _handler(self, hook: str, turn: dict[str, Any], three: bool) -> Callable[..., Any]:
        async def handle_three(payload: Any, context: Any, extensions: Any) -> Any:
            return await self._take(hook, turn, payload, context, extensions)

        async def handle_two(payload: Any, context: Any) -> Any:
            return await self._take(hook, turn, payload, context, None)

        return handle_three if three else handle_two

    async def _take(self, hook: str, turn: dict[str, Any], payload: Any, context: Any, extensions: Any) -> Any:
        note: dict[str, Any] = {"plugin": self.name, "hook": hook}
        if turn["looks"]:
            note |= _seen(payload, context, extensions)
        JOURNAL.append(note)
        if "guard" in turn and not holds(turn["guard"], hook, payload, context.global_context):
            note["passed_over"] = True
            return PluginResult()
        try:
            result = await self._play(hook, turn, payload, context, extensions)
        except Exception as error:
            note["raised"] = error.error.message if isinstance(error, PluginError) else repr(error)
            if turn["writes_late"]:
                self._leave([], ends=self._config.on_error == "fail")
            raise
        if turn["writes_late"]:
            left = [write for write in turn["writes"] if write["where"] in SHARED]
            self._leave(left, ends=isinstance(result, PluginResult) and not result.continue_processing)
        return result

    def _leave(self, writes: list[dict[str, Any]], *, ends: bool) -> None:
        LATE.append({"plugin": self.name, "priority": self.priority, "writes": writes, "ends": ends})

    async def _play(self, hook: str, turn: dict[str, Any], payload: Any, context: Any, extensions: Any) -> Any:
        for _ in range(turn["yields"]):
            await asyncio.sleep(0)
        edited = _edited(payload, turn)
        for write in turn["writes"]:
            if not (turn["writes_late"] and write["where"] in SHARED):
                write_down(context.global_context, context, write)
        answer = turn["answer"]
        if answer == "hang":
            await asyncio.Event().wait()
        if answer in _FAILURES:
            raise _FAILURES[answer](self.name)
        if answer in _FOREIGN:
            return _FOREIGN[answer]
        fields = dict(turn["result"])
        if "violation" in fields:
            fields["violation"] = PluginViolation(**fields["violation"])
        if turn["change"] is not None and turn["change"]["how"] == "aside":
            reply = _changed(hook, {**turn["change"], "how": "reply"}, edited)
            told = {"type": type(reply).__name__, "value": plain(reply)}
            fields["metadata"] = {**(fields.get("metadata") or {}), f"reply:{self.name}": told}
        elif turn["change"] is not None and not (turn["change"]["how"] == "edited" and edited is payload):
            fields["modified_payload"] = _changed(hook, turn["change"], edited)
        if turn["extensions"] is not None:
            fields["modified_extensions"] = _extended(extensions, turn["extensions"])
        kind: Any = get_hook_registry().get_result_type(hook) if turn["typed"] else PluginResult
        return kind(continue_processing=answer == "allow", **fields)


def _seen(payload: Any, context: Any, extensions: Any) -> dict[str, Any]:
    shared = context.global_context
    return {
        "payload": plain(payload),
        "payload_type": type(payload).__name__,
        "containers": {
            name: type(value).__name__ for name, value in dict(payload).items() if isinstance(value, dict | list)
        },
        "state": plain(shared.state),
        "metadata": plain(shared.metadata),
        "user": plain(shared.user),
        "tenant_id": shared.tenant_id,
        "own": plain(context.state),
        "own_metadata": plain(context.metadata),
        "extensions": plain(extensions),
    }


def _edited(payload: Any, turn: dict[str, Any]) -> Any:
    """The payload after the edits: the same object, or, when that is to be spared, an equal or a changed one."""
    if not turn["edits"]:
        return payload
    target = payload if turn["edits_on"] == "view" else copy.deepcopy(payload)
    for edit in turn["edits"]:
        _edit(target, edit)
    return payload if plain(target) == plain(payload) else target


def _edit(target: Any, edit: dict[str, Any]) -> None:
    for step in edit["path"]:
        target = target[step] if isinstance(target, dict | list) else getattr(target, step)
    do: str = edit["do"]
    key: Any = edit.get("key")
    value: Any = edit.get("value")
    match do:
        case "set":
            target[key] = value
        case "assign" if isinstance(target, dict | list):
            # Containers of the published package take attributes, plain ones do not.
            raise TypeError(f"no attribute {key} in a container")
        case "assign":
            setattr(target, key, value)
        case "delete":
            del target[key]
        case "append":
            target.append(value)
        case "insert":
            target.insert(0, value)
        case "update":
            target.update(value)
        case "pop" | "clear" | "reverse":
            getattr(target, do)()
        case _:
            raise AssertionError(f"unknown edit {do}")


def write_down(shared: Any, context: Any, write: dict[str, Any]) -> None:
    """Make one change of shared or own state."""
    where, do, key, value = write["where"], write["do"], write["key"], write.get("value")
    if where == "shared":
        setattr(shared, key, value)
        return
    owners = {"state": shared, "metadata": shared, "own": context, "own_metadata": context}
    target = getattr(owners[where], where.removeprefix("own_").replace("own", "state"))
    match do:
        case "set":
            target[key] = value
        case "delete":
            target.pop(key, None)
        case "bury":
            if key in target:
                target[key] = TOMBSTONE
        case "grow":
            target.setdefault(key, {})["n"] = value
        case "replace":
            before = target.get(key)
            target[key] = {**(before if isinstance(before, dict) else {}), "n": value}
        case _:
            raise AssertionError(f"unknown write {do}")


def _changed(hook: str, change: dict[str, Any], edited: Any) -> Any:
    """The modified payload: what was handed over, a copy, a new object, a dict, something else, or a reply."""
    match change["how"]:
        case "view" | "edited":
            return edited
        case "copy":
            return edited.model_copy(update=copy.deepcopy(change["fields"]))
        case "fresh":
            return type(edited).model_validate({**edited.model_dump(), **change["fields"]})
        case "dict":
            return {**plain(edited), **change["fields"]}
        case "validated":
            return type(edited).model_validate({**plain(edited), **change["fields"]})
        case "foreign":
            return ResourcePreFetchPayload(uri="foreign")
        case "refused":
            expected, name = type(edited).__name__, change["plugin"]
            raise _named(
                "ForeignPayload",
                f"plugin {name} returned a modified payload of type ResourcePreFetchPayload for hook {hook}; "
                f"expected {expected}",
            )
        case "reply":
            return get_hook_registry().json_to_result(hook, {"modified_payload": change["fields"]}).modified_payload
        case how:
            raise AssertionError(f"unknown change {how}")


def _extended(extensions: Any, wanted: dict[str, Any]) -> Any:
    base = extensions if extensions is not None else Extensions()
    update: dict[str, Any] = {}
    if "custom" in wanted:
        update["custom"] = {**(base.custom or {}), **wanted["custom"]}
    if "environment" in wanted:
        update["request"] = RequestExtension(environment=wanted["environment"])
    if "labels" in wanted and base.security is not None:
        labels = frozenset(base.security.labels) | frozenset(wanted["labels"])
        update["security"] = base.security.model_copy(update={"labels": labels})
    return base.model_copy(update=update)
