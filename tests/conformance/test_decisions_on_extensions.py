"""Decisions about extensions: who sees them, who changes them, and what becomes of a change."""

from __future__ import annotations

from typing import Any

import pytest
from support import call, deny, manager_of, plugin, record_of

from cpex.framework import PluginResult
from cpex.framework.extensions import AgentExtension, Extensions, SecurityExtension, SubjectExtension, SubjectType
from cpex.framework.hooks.identity import IdentityPayload, IdentityResult

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")


@pytest.mark.conformance("D17")
async def test_extensions_open_by_capability_chain_to_later_plugins_and_survive_a_halt() -> None:
    seen = []

    async def labels(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append((extensions.agent, extensions.security.labels))
        security = SecurityExtension(labels=frozenset({"pii"}) | extensions.security.labels)
        return PluginResult(modified_extensions=extensions.model_copy(update={"security": security, "agent": None}))

    async def looks_and_denies(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append((extensions.agent, extensions.security.labels))
        return await deny(payload, context)

    before = Extensions(agent=AgentExtension(agent_id="a"), security=SecurityExtension(labels=frozenset({"internal"})))
    manager = manager_of(
        plugin(labels, "labels", capabilities=["append_labels"]),
        plugin(looks_and_denies, capabilities=["read_labels"]),
    )
    result, _ = await call(manager, extensions=before)
    assert seen == [(None, {"internal"}), (None, {"internal", "pii"})]
    assert result.modified_extensions.security.labels == {"internal", "pii"}
    assert result.modified_extensions.agent == before.agent
    assert before.security.labels == {"internal"}


@pytest.mark.conformance("D17")
@pytest.mark.parametrize("mode", MODES)
async def test_extensions_that_a_plugin_may_not_write_stay(mode: str) -> None:
    async def writes(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        security = SecurityExtension(labels=frozenset({"forged"}))
        return PluginResult(modified_extensions=extensions.model_copy(update={"security": security}))

    result, _ = await call(manager_of(plugin(writes, mode=mode)), extensions=Extensions())
    await result.wait_for_background_tasks()
    assert result.modified_extensions is None
    assert record_of(result.executions).extensions_modified is False


@pytest.mark.conformance("D17a")
async def test_without_extensions_of_the_host_plugins_see_none() -> None:
    seen = []

    async def looks(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append(extensions)
        return PluginResult()

    await call(manager_of(plugin(looks)))
    assert seen == [None]


@pytest.mark.conformance("D17a.identity")
async def test_a_resolved_subject_makes_the_extensions_that_the_host_did_not_pass() -> None:
    seen = []

    async def resolves(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append(extensions)
        subject = SubjectExtension(id="ann", type=SubjectType.USER)
        return PluginResult(modified_payload=IdentityResult(subject=subject))

    async def looks(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append(extensions.security.subject.id)
        return PluginResult()

    hook = "identity_resolve"
    manager = manager_of(plugin(resolves, "a", [hook]), plugin(looks, "b", [hook], capabilities=["read_subject"]))
    result, _ = await call(manager, IdentityPayload(raw_token="t"), hook=hook)
    assert seen == [None, "ann"]
    assert result.modified_extensions.security.subject.id == "ann"
