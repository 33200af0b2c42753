"""What the replies of the identity hooks do to the call and to the extensions that later plugins read."""

import logging
from typing import Any

import pytest
from support import call, manager_of, plugin, record_of

from cpex.framework.base import Plugin
from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.extensions import (
    DelegationExtension,
    DelegationHop,
    Extensions,
    RequestExtension,
    SecurityExtension,
    SubjectExtension,
    SubjectType,
)
from cpex.framework.hooks.identity import (
    DelegationPayload,
    DelegationResult,
    IdentityPayload,
    IdentityResult,
)
from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.models.result import PluginResult, PluginViolation

RESOLVE = "identity_resolve"
DELEGATE = "token_delegate"
ANN = SubjectExtension(id="ann", type=SubjectType.USER, roles=frozenset({"hr"}), claims={"iss": "idp"})
BOB = SubjectExtension(id="bob", type=SubjectType.USER)
HOPS = [DelegationHop(subject_id=name, subject_type="agent") for name in ("agent-1", "agent-2", "agent-3")]
ALL = {"read_subject", "read_roles", "read_claims", "read_delegation"}


def replying(reply: Any, name: str = "p", hook: str = RESOLVE, result: Any = None, **config: Any) -> Plugin:
    """A plugin that answers with one reply, or with the given result around it."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=reply, **(result or {}))

    return plugin(handler, name, [hook], **config)


def reading(seen: list[Extensions | None], hook: str = RESOLVE, name: str = "reader", **config: Any) -> Plugin:
    """A plugin that keeps the extensions it is shown; runs after the others."""

    async def handler(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        assert isinstance(payload, IdentityPayload | DelegationPayload)
        seen.append(extensions)
        return PluginResult()

    return plugin(handler, name, [hook], **{"priority": 500, "capabilities": ALL, **config})


async def resolve(*plugins: Plugin, extensions: Extensions | None = None, **options: Any) -> PluginResult[Any]:
    manager = manager_of(*plugins, **options)
    payload = IdentityPayload(raw_token="secret-token")
    result, _ = await call(manager, payload, hook=RESOLVE, extensions=extensions)
    return result


async def delegate(*plugins: Plugin, extensions: Extensions | None = None) -> PluginResult[Any]:
    payload = DelegationPayload(target_name="tool")
    result, _ = await call(manager_of(*plugins), payload, hook=DELEGATE, extensions=extensions)
    return result


# A refusal.

REFUSAL = IdentityResult(rejected=True, reject_status=403, reject_reason="key revoked", subject=ANN)


@pytest.mark.parametrize("reply", [REFUSAL, REFUSAL.model_dump()], ids=["model", "dict"])
async def test_a_rejected_identity_is_a_denial_that_the_host_sees(reply: Any) -> None:
    seen: list[Any] = []
    result = await resolve(replying(reply), reading(seen))
    assert not result.continue_processing
    violation = result.violation
    assert violation is not None
    assert (violation.code, violation.reason, violation.http_status_code) == ("identity_rejected", "key revoked", 403)
    assert violation.plugin_name == "p"
    assert seen == []
    record = record_of(result.executions)
    assert (record.requested_allow, record.effective_allow, record.error_code) == (False, False, "identity_rejected")
    # Hosts that know refusals by the reply alone find it, and no subject has taken effect.
    assert result.modified_payload == REFUSAL
    assert result.modified_extensions is None


async def test_a_refusal_without_details_has_defaults() -> None:
    violation = (await resolve(replying(IdentityResult(rejected=True)))).violation
    assert violation is not None
    assert (violation.reason, violation.http_status_code) == ("the identity was rejected", 401)


async def test_a_refusal_is_an_exception_for_hosts_that_ask_for_exceptions() -> None:
    manager = manager_of(replying(REFUSAL))
    with pytest.raises(PluginViolationError, match="identity_rejected") as error:
        await call(manager, IdentityPayload(raw_token="t"), hook=RESOLVE, violations_as_exceptions=True)
    assert error.value.violation is not None
    assert error.value.violation.http_status_code == 403


async def test_a_violation_of_the_plugin_s_own_stands() -> None:
    own = PluginViolation(reason="mine", description="mine", code="MINE")
    for goes_on in (True, False):
        result = await resolve(replying(REFUSAL, result={"violation": own, "continue_processing": goes_on}))
        assert not result.continue_processing
        assert result.violation is not None
        assert (result.violation.code, result.violation.plugin_name) == ("MINE", "p")


async def test_a_malformed_refusal_is_still_a_refusal() -> None:
    odd = REFUSAL.model_copy(update={"rejected": "yes", "reject_status": "forbidden", "reject_reason": None})
    result = await resolve(replying(odd, on_error="ignore"))
    assert not result.continue_processing
    assert result.violation is not None
    assert result.violation.http_status_code == 401


async def test_a_concurrent_plugin_refuses_although_its_replies_do_not_count() -> None:
    result = await resolve(replying(REFUSAL, mode="concurrent"), replying(None, "other", mode="concurrent"))
    assert not result.continue_processing
    assert result.violation is not None
    assert result.violation.code == "identity_rejected"
    assert result.modified_payload is None


@pytest.mark.parametrize("mode", ["transform", "audit"])
async def test_a_mode_that_cannot_deny_records_the_refusal(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = await resolve(replying(REFUSAL, mode=mode))
    assert result.continue_processing
    record = record_of(result.executions)
    assert (record.requested_allow, record.effective_allow, record.error_code) == (False, True, "identity_rejected")
    assert "key revoked" in caplog.text
    assert result.modified_extensions is None
    assert result.modified_payload == (REFUSAL if mode == "transform" else None)


async def test_a_hook_that_nobody_may_write_to_can_still_refuse() -> None:
    result = await resolve(replying(REFUSAL), default_hook_policy="deny")
    assert not result.continue_processing
    assert result.modified_payload is None


# A subject.


@pytest.mark.parametrize("extensions", [None, Extensions(request=RequestExtension(request_id="r"))])
async def test_a_subject_reaches_later_plugins_and_the_host(extensions: Extensions | None) -> None:
    seen: list[Any] = []
    reply = IdentityResult(subject=ANN)
    blind = reading(seen, name="blind", capabilities=set(), priority=600)
    result = await resolve(replying(reply), reading(seen), blind, extensions=extensions)

    assert seen[0].security.subject == ANN
    assert seen[1].security.subject is None
    assert result.modified_payload == reply
    assert result.modified_extensions is not None
    assert result.modified_extensions == (extensions or Extensions()).model_copy(
        update={"security": SecurityExtension(subject=ANN)}
    )
    record = record_of(result.executions)
    assert (record.payload_modified, record.extensions_modified, record.applied) == (True, True, True)
    assert extensions is None or extensions.security is None


async def test_the_subject_of_the_extensions_is_nobody_else_s_object() -> None:
    reply = IdentityResult(subject=ANN.model_copy(update={"claims": {"iss": "idp"}}))
    result = await resolve(replying(reply))
    assert reply.subject is not None
    reply.subject.claims["iss"] = "forged"
    result.modified_payload.subject.claims["iss"] = "forged"
    assert result.modified_extensions is not None
    assert result.modified_extensions.security.subject.claims == {"iss": "idp"}


async def test_the_rest_of_the_security_slot_stays_and_the_last_subject_stands() -> None:
    seen: list[Any] = []
    security = SecurityExtension(labels=frozenset({"PII"}), classification="high")
    plugins = [replying(IdentityResult(subject=BOB), "first"), reading(seen, name="between", priority=150)]
    plugins += [replying(IdentityResult(subject=ANN), "second", priority=200), replying(IdentityResult(), "third")]
    result = await resolve(*plugins, extensions=Extensions(security=security))
    assert seen[0].security.subject == SubjectExtension(id="bob", type=SubjectType.USER)
    assert result.modified_extensions is not None
    assert result.modified_extensions.security == security.model_copy(update={"subject": ANN})


async def test_a_subject_that_is_already_there_changes_nothing() -> None:
    extensions = Extensions(security=SecurityExtension(subject=ANN))
    result = await resolve(replying(IdentityResult(subject=ANN)), extensions=extensions)
    assert result.modified_extensions is None
    assert not record_of(result.executions).extensions_modified


@pytest.mark.parametrize("mode", ["audit", "concurrent", "fire_and_forget"])
async def test_replies_of_modes_that_may_not_write_have_no_effect(mode: str) -> None:
    result = await resolve(replying(IdentityResult(subject=ANN), mode=mode))
    await result.wait_for_background_tasks()
    assert result.modified_extensions is None


async def test_a_reply_that_the_host_s_rules_reject_has_no_effect() -> None:
    reply = IdentityResult(subject=ANN)
    assert (await resolve(replying(reply), default_hook_policy="deny")).modified_extensions is None
    policies = {RESOLVE: HookPayloadPolicy(writable_fields=frozenset())}
    result = await resolve(replying(reply), default_hook_policy="deny", hook_policies=policies)
    assert result.modified_extensions is not None


async def test_a_plugin_cannot_name_a_subject_by_other_ways() -> None:
    forged = Extensions(security=SecurityExtension(subject=ANN))
    result = await resolve(replying(None, result={"modified_extensions": forged}, capabilities=ALL))
    assert result.modified_extensions is None


@pytest.mark.parametrize(
    "reply",
    [
        IdentityResult(subject=ANN.model_copy(update={"claims": {"n": 5}})),
        IdentityResult().model_copy(update={"subject": "ann"}),
        IdentityResult(subject=ANN).model_copy(update={"delegation": {"chain": 5}}),
    ],
    ids=["claims", "text", "delegation"],
)
async def test_a_malformed_reply_is_the_plugin_s_failure_and_has_no_effect_at_all(reply: IdentityResult) -> None:
    with pytest.raises(PluginError):
        await resolve(replying(reply))
    result = await resolve(replying(reply, on_error="ignore"))
    assert result.modified_payload is None
    assert result.modified_extensions is None
    assert record_of(result.executions).status.value == "error"


# A delegation.


def chain(*hops: DelegationHop, origin: str | None = None) -> DelegationExtension:
    delegation = DelegationExtension(origin_subject_id=origin)
    for hop in hops:
        delegation = delegation.with_new_hop(hop)
    return delegation


def delegation_of(result: PluginResult[Any]) -> DelegationExtension:
    assert result.modified_extensions is not None
    delegation: DelegationExtension = result.modified_extensions.delegation
    return delegation


async def test_the_first_delegation_is_entered_as_the_token_tells_it() -> None:
    seen: list[Any] = []
    told = chain(HOPS[0], origin="ann")
    result = await resolve(replying(IdentityResult(subject=ANN, delegation=told)), reading(seen))
    assert delegation_of(result) == told
    assert seen[0].delegation == told
    assert seen[0].security.subject == ANN


async def test_an_identity_may_continue_a_chain_and_not_rewrite_it() -> None:
    host = Extensions(delegation=chain(HOPS[0], origin="ann"))
    longer = IdentityResult(delegation=chain(HOPS[0], HOPS[1]))
    grown = delegation_of(await resolve(replying(longer), extensions=host))
    assert (grown.chain, grown.depth, grown.origin_subject_id) == ((HOPS[0], HOPS[1]), 2, "ann")

    other = replying(IdentityResult(delegation=chain(HOPS[1])))
    with pytest.raises(PluginError, match="delegation"):
        await resolve(other, extensions=host)
    empty = await resolve(replying(IdentityResult(delegation=DelegationExtension())), extensions=host)
    assert empty.modified_extensions is None


@pytest.mark.parametrize("update", [chain(HOPS[1]), chain(HOPS[0], HOPS[1])], ids=["new_hops", "whole_chain"])
async def test_a_delegation_update_is_appended(update: DelegationExtension) -> None:
    seen: list[Any] = []
    host = Extensions(delegation=chain(HOPS[0], origin="ann"))
    reply = DelegationResult(delegated_token="t", delegation_update=update)
    result = await delegate(replying(reply, hook=DELEGATE), reading(seen, DELEGATE), extensions=host)
    grown = delegation_of(result)
    assert (grown.chain, grown.depth, grown.actor_subject_id) == ((HOPS[0], HOPS[1]), 2, "agent-2")
    assert grown.origin_subject_id == "ann"
    assert seen[0].delegation == grown
    assert result.modified_payload == reply
    assert host.delegation == chain(HOPS[0], origin="ann")


async def test_updates_of_several_plugins_add_up() -> None:
    plugins = [
        replying(DelegationResult(delegation_update=chain(hop)), f"p{index}", DELEGATE, priority=index)
        for index, hop in enumerate(HOPS)
    ]
    result = await delegate(*plugins)
    assert delegation_of(result).chain == tuple(HOPS)
    assert result.modified_payload == DelegationResult(delegation_update=chain(HOPS[2]))


@pytest.mark.parametrize(
    "update",
    [chain(HOPS[0]), chain(HOPS[1], HOPS[0]), chain(HOPS[0].model_copy(update={"audience": "x"}), HOPS[1])],
    ids=["shorter", "reordered", "rewritten"],
)
async def test_an_update_that_rewrites_the_chain_is_the_plugin_s_failure(update: DelegationExtension) -> None:
    host = Extensions(delegation=chain(*HOPS[:2]))
    reply = replying(DelegationResult(delegation_update=update), hook=DELEGATE)
    with pytest.raises(PluginError, match="delegation"):
        await delegate(reply, extensions=host)


def granting(scopes: str, audience: str = "api") -> DelegationHop:
    granted = tuple(scopes.split())
    return DelegationHop(subject_id="a", subject_type="agent", audience=audience, scopes_granted=granted)


@pytest.mark.conformance("D17.narrowing")
@pytest.mark.parametrize("hook", [DELEGATE, "tool_pre_invoke"])
async def test_a_hop_that_grants_more_than_its_parent_is_the_plugin_s_failure(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = granting("read")
    host = Extensions(delegation=chain(first))
    wider = chain(first, granting("read write"))

    async def handler(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        if hook == DELEGATE:
            return PluginResult(modified_payload=DelegationResult(delegated_token="t", delegation_update=wider))
        return PluginResult(modified_extensions=extensions.model_copy(update={"delegation": wider}))

    payload = DelegationPayload(target_name="tool") if hook == DELEGATE else None
    strict = plugin(handler, hooks=[hook], capabilities=["append_delegation"])
    with pytest.raises(PluginError, match=r"hop 1 of the chain grants `write`, which the hops before it were not"):
        await call(manager_of(strict), payload, hook=hook, extensions=host)
    lenient = plugin(handler, hooks=[hook], capabilities=["append_delegation"], on_error="ignore")
    result, _ = await call(manager_of(lenient), payload, hook=hook, extensions=host)
    # The token goes with the hop: nothing of a reply that was refused reaches the host.
    assert (result.modified_payload, result.modified_extensions) == (None, None)
    assert record_of(result.executions).status == "error"
    assert "hop 1 of the chain grants `write`" in caplog.text


@pytest.mark.conformance("D17.narrowing")
async def test_scopes_of_another_audience_go_by_the_mapping_of_the_configuration() -> None:
    host = Extensions(delegation=chain(granting("read")))
    reply = DelegationResult(delegation_update=chain(granting("mail.open", "mail")))
    mapped = replying(reply, hook=DELEGATE, scope_mapping={"mail": {"read": ["mail.open"]}})
    result = await delegate(mapped, extensions=host)
    assert result.modified_extensions.delegation.depth == 2
    with pytest.raises(PluginError, match="list them in the plugin's `scope_mapping`"):
        await delegate(replying(reply, hook=DELEGATE), extensions=host)


async def test_the_first_update_of_a_delegation_narrows_from_hop_to_hop_as_well() -> None:
    reply = DelegationResult(delegation_update=chain(granting("read"), granting("write")))
    with pytest.raises(PluginError, match="hop 1 of the chain grants `write`"):
        await delegate(replying(reply, hook=DELEGATE), extensions=Extensions())


async def test_a_token_without_an_update_leaves_the_extensions_alone() -> None:
    reply = DelegationResult(delegated_token="t")
    for host in (None, Extensions(), Extensions(delegation=chain(HOPS[0]))):
        result = await delegate(replying(reply, hook=DELEGATE), extensions=host)
        assert result.modified_extensions is None
        assert result.modified_payload == reply


async def test_other_hooks_know_nothing_of_identities() -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=REFUSAL)

    manager = manager_of(plugin(handler, hooks=["custom"]))
    result, _ = await call(manager, IdentityPayload(raw_token="t"), hook="custom")
    assert result.continue_processing
    assert result.modified_payload == REFUSAL
    assert result.modified_extensions is None
