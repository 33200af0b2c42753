"""OPA's data API: what is asked, and which answers allow."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import pytest
from pdp_servers import UNDEFINED, Engine, PdpServer, opa
from support import of_ours

from cpex.framework.pdp import OpaResolver, PdpError, PdpResult

Serve = Callable[[Engine], PdpServer]
QUESTION = {"subject": {"id": "ann", "roles": ["dev"]}, "action": "tools/call", "tool": "search", "args": {"q": "x"}}


async def ask(serve: Serve, result: Any, *, fail_open: bool = False) -> PdpResult:
    server = serve(opa({"cpex/authz/allow": lambda _: result}))
    resolver = OpaResolver(f"{server.url}/v1/data/cpex/authz/allow", timeout_ms=60_000, fail_open=fail_open)
    try:
        return await resolver.resolve(QUESTION)
    finally:
        await resolver.close()


async def test_the_facts_arrive_unchanged_as_input(serve: Serve) -> None:
    server = serve(opa({"authz": lambda facts: facts["subject"]["roles"] == ["dev"]}))
    resolver = OpaResolver(f"{server.url}/v1/data/authz", 60_000, {"Authorization": "Bearer t"})
    result = await resolver.resolve(QUESTION)
    await resolver.close()
    assert (result.allowed, result.reason, result.context, result.from_cache) == (True, None, {}, False)
    assert result.latency_ms > 0
    (asked,) = server.asked
    assert (asked.path, asked.body, asked.headers["Authorization"]) == (
        "/v1/data/authz",
        {"input": QUESTION},
        "Bearer t",
    )


@pytest.mark.parametrize(
    ("document", "allowed", "reason"),
    [
        (True, True, None),
        (False, False, None),
        ({"allow": True, "ttl": 5}, True, None),
        ({"allow": False}, False, None),
        ({}, False, None),
        ({"allow": True, "deny": []}, True, None),
        ({"allow": True, "deny": ["not on Sundays", "nor at night"]}, False, "not on Sundays"),
        ({"allow": True, "deny": "closed"}, False, "closed"),
        ({"allow": True, "deny": [{"msg": "closed"}]}, False, "closed"),
        ({"allow": True, "deny": {"closed": True}}, False, "closed"),
        ({"allow": True, "deny": True}, False, None),
    ],
)
@pytest.mark.conformance("P6")
async def test_a_boolean_or_an_object_decides_and_any_denial_denies(
    serve: Serve, document: Any, allowed: bool, reason: str | None
) -> None:
    result = await ask(serve, document)
    assert (result.allowed, result.reason) == (allowed, reason)
    assert result.context == (document if isinstance(document, dict) else {})


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ("false", "result is str, not a boolean or an object"),
        ("true", "result is str, not a boolean or an object"),
        (1, "result is int, not a boolean or an object"),
        (None, "result is NoneType, not a boolean or an object"),
        (["allow"], "result is list, not a boolean or an object"),
        ({"allow": "no"}, "result.allow is str, not a boolean"),
        ({"allow": 1}, "result.allow is int, not a boolean"),
        (UNDEFINED, "result is undefined"),
    ],
)
@pytest.mark.conformance("P5")
async def test_what_is_no_boolean_denies_and_is_told(
    serve: Serve, caplog: pytest.LogCaptureFixture, document: Any, what: str
) -> None:
    result = await ask(serve, document)
    assert (result.allowed, result.reason) == (False, f"OPA {what}")
    (record,) = of_ours(caplog.records)
    assert record.levelno == logging.WARNING
    assert what in record.getMessage()
    assert "so the call is denied; see whether the path names a rule of the policy" in record.getMessage()


async def test_who_fails_open_hears_of_it_each_time(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    result = await ask(serve, UNDEFINED, fail_open=True)
    assert (result.allowed, result.reason) == (True, "OPA result is undefined, fail-open")
    assert "let pass, because the resolver fails open" in caplog.text


async def test_failing_open_does_not_turn_a_denial(serve: Serve) -> None:
    assert not (await ask(serve, {"allow": "no", "deny": ["closed"]}, fail_open=True)).allowed


@pytest.mark.skipif("OPA_URL" not in os.environ, reason="OPA_URL names no running Open Policy Agent")
async def test_the_real_engine_answers_as_ours_does() -> None:
    import httpx2

    url = os.environ["OPA_URL"].rstrip("/")
    policy = (
        "package cpex.contract\n\nimport rego.v1\n\ndefault allow := false\n\n"
        'allow if input.tool == "search"\n\ndecision := {"allow": allow, "deny": deny}\n\n'
        'deny contains "no shell" if input.tool == "shell"\n'
    )
    async with httpx2.AsyncClient() as client:
        put = await client.put(f"{url}/v1/policies/cpex_contract", content=policy)
        assert put.is_success, put.text
        try:
            for path, tool, expected in [
                ("allow", "search", (True, None)),
                ("allow", "shell", (False, None)),
                ("decision", "search", (True, None)),
                ("decision", "shell", (False, "no shell")),
                ("nothing", "search", (False, "OPA result is undefined")),
            ]:
                resolver = OpaResolver(f"{url}/v1/data/cpex/contract/{path}", timeout_ms=60_000)
                result = await resolver.resolve({"tool": tool})
                await resolver.close()
                assert (result.allowed, result.reason) == expected, (path, tool)
            resolver = OpaResolver(f"{url}/v1/nothing", timeout_ms=60_000)
            with pytest.raises(PdpError, match="OPA HTTP 404"):
                await resolver.resolve({})
            await resolver.close()
        finally:
            await client.delete(f"{url}/v1/policies/cpex_contract")
