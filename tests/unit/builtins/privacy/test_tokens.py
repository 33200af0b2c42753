# The look-alike characters in these texts are what is tested.
# ruff: noqa: RUF001
"""Tokens on the way out, taken back on the way home: in a request, over workers, and when the store is away."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
    clock,
)
from cpex.framework.models import Config

CARD, MAIL = "4111 1111 1111 1111", "joe@example.com"
SECRET = "a secret of some length"


def plugin(**config: Any) -> PIIRedactionPlugin:
    return PIIRedactionPlugin(PluginConfig(name="guard", kind="x.Y", config={"mode": "tokenise", **config}))


def context_of(request_id: str = "the first request", tenant: str | None = None) -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id=request_id, tenant_id=tenant))


async def out(guard: PIIRedactionPlugin, args: dict[str, Any], context: PluginContext) -> Any:
    """What the tool is given."""
    result = await guard.tool_pre_invoke(ToolPreInvokePayload(name="t", args=args), context)
    assert result.continue_processing
    return args if result.modified_payload is None else result.modified_payload.args


async def back(guard: PIIRedactionPlugin, answer: Any, context: PluginContext) -> tuple[Any, Any]:
    """What the caller is given of the tool's answer, and the plugin's facts."""
    result = await guard.tool_post_invoke(ToolPostInvokePayload(name="t", result=answer), context)
    changed = answer if result.modified_payload is None else result.modified_payload.result
    return changed, result.metadata.get("guard", {})


async def test_a_tool_sees_tokens_and_the_caller_gets_its_own_data_back() -> None:
    guard, context = plugin(), context_of()
    args = {"to": MAIL, "cc": [f"{MAIL}, {CARD}"], "card": 4111111111111111, MAIL: b"ip 10.20.30.40"}
    seen = await out(guard, args, context)
    token = seen["to"]
    assert token.startswith("[EMAIL-TOKEN#")
    assert len(token) == len("[EMAIL-TOKEN#]") + 16
    assert seen["cc"][0].startswith(f"{token}, [CARD-TOKEN#"), "equal data has equal tokens"
    assert seen[token].startswith(b"ip [IP-TOKEN#")
    assert not any(secret in repr(seen) for secret in ("joe", "4111", "10.20"))
    answer, facts = await back(guard, {"sent": seen, "note": f"mailed {token}"}, context)
    assert answer == {"sent": args, "note": f"mailed {MAIL}"}
    assert type(answer["sent"]["card"]) is int
    assert facts == {"restored": 7}


async def test_what_a_tool_adds_is_redacted_and_stays_so() -> None:
    guard, context = plugin(), context_of()
    seen = await out(guard, {"to": MAIL}, context)
    answer, facts = await back(guard, f"{seen['to']} knows ann@example.org and {MAIL}", context)
    assert answer == f"{MAIL} knows [EMAIL-REDACTED] and [EMAIL-REDACTED]"
    assert facts == {"pii": {"email": 2}, "restored": 1}


async def test_a_token_of_another_request_is_worth_nothing() -> None:
    guard = plugin()
    seen = await out(guard, {"to": MAIL}, context_of())
    other = context_of("r2")
    assert (await out(guard, {"to": MAIL}, other))["to"] != seen["to"], "tokens do not link requests"
    assert await back(guard, seen["to"], other) == (seen["to"], {})
    assert await back(guard, "[EMAIL-TOKEN#aaaaaaaaaaaaaaaa]", other) == ("[EMAIL-TOKEN#aaaaaaaaaaaaaaaa]", {})


async def test_types_may_differ_in_what_becomes_of_them() -> None:
    guard, context = plugin(mode="mask", modes={"email": "tokenise"}), context_of()
    seen = await out(guard, {"a": f"{MAIL} {CARD}"}, context)
    assert seen["a"].endswith("] **** **** **** 1111")
    assert (await back(guard, seen["a"], context))[0] == f"{MAIL} **** **** **** 1111"


async def test_beyond_the_bound_values_get_a_label_and_are_counted() -> None:
    guard, context = plugin(max_tokens=2), context_of()
    args = {"a": [f"u{number}@example.com" for number in range(4)]}
    result = await guard.tool_pre_invoke(ToolPreInvokePayload(name="t", args=args), context)
    assert result.modified_payload is not None
    assert result.modified_payload.args["a"][2:] == ["[EMAIL-REDACTED]", "[EMAIL-REDACTED]"]
    assert result.metadata == {"guard": {"pii": {"email": 4}, "beyond_max_tokens": 2}}


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [CARD, MAIL, "212-736-5000", "123-45-6789", "10.20.30.40", "ｊｏｅ＠example.com", " ", "\n", "["]
        )
        | st.text(max_size=6),
        max_size=8,
    )
)
async def test_what_went_out_comes_back_letter_by_letter(parts: list[str]) -> None:
    guard, context = plugin(), context_of()
    text = "".join(parts)
    once = (await out(guard, {"a": text}, context))["a"]
    assert (await out(guard, {"a": once}, context))["a"] == once, "a token is no personal data"
    assert (await back(guard, once, context))[0] == text


async def test_a_host_that_hands_its_contexts_on_gets_everything_back() -> None:
    config = PluginConfig(
        name="pii",
        kind="cpex.builtins.privacy.pii_redaction.PIIRedactionPlugin",
        hooks=["tool_pre_invoke", "tool_post_invoke"],
        mode="transform",
        config={"mode": "tokenise"},
    )
    manager = TenantPluginManager(Config(plugins=[config]))
    await manager.initialize()
    request = GlobalContext(request_id="the first request")
    sent, contexts = await manager.invoke_hook(
        "tool_pre_invoke", ToolPreInvokePayload(name="t", args={"a": MAIL}), request
    )
    assert sent.modified_payload is not None
    seen = sent.modified_payload.args["a"]
    assert seen != MAIL
    payload = ToolPostInvokePayload(name="t", result={"echo": seen})
    answer, _ = await manager.invoke_hook("tool_post_invoke", payload, request, local_contexts=contexts)
    await manager.shutdown()
    assert answer.modified_payload is not None
    assert answer.modified_payload.result == {"echo": MAIL}


async def test_another_worker_takes_tokens_back_from_the_store(tmp_path: Path) -> None:
    shared = {"store": str(tmp_path / "tokens.db"), "token_key": SECRET}
    first, second = plugin(**shared), plugin(**shared)
    seen = await out(first, {"to": MAIL}, context_of())
    more = await out(second, {"to": MAIL, "cc": CARD}, context_of())
    assert more["to"] == seen["to"], "workers agree on tokens"
    assert await back(first, more, context_of()) == ({"to": MAIL, "cc": CARD}, {"restored": 2})
    assert await back(second, seen, context_of(tenant="other")) == (seen, {})
    await first.shutdown()
    await second.shutdown()
    with closing(sqlite3.connect(tmp_path / "tokens.db")) as database:
        kept = "\n".join(database.iterdump())
    assert "joe@" not in kept
    assert "4111 " not in kept
    assert "first request" not in kept


PROCESS = """
import asyncio, json, sys
from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.framework import GlobalContext, PluginConfig, PluginContext, ToolPreInvokePayload

async def main():
    config = {"mode": "tokenise", "store": sys.argv[1], "token_key": sys.argv[2]}
    guard = PIIRedactionPlugin(PluginConfig(name="guard", kind="x.Y", config=config))
    context = PluginContext(global_context=GlobalContext(request_id="the first request"))
    for number in range(10):
        payload = ToolPreInvokePayload(name="t", args={"a": f"{sys.argv[3]}{number}@example.com"})
        result = await guard.tool_pre_invoke(payload, context)
        print(json.dumps(result.modified_payload.args["a"]))
    await guard.shutdown()

asyncio.run(main())
"""


async def test_processes_that_write_for_one_request_lose_nothing_of_one_another(tmp_path: Path) -> None:
    store = str(tmp_path / "tokens.db")
    commands = [[sys.executable, "-c", PROCESS, store, SECRET, name] for name in ("ann", "bob", "cid")]
    running = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for command in commands]
    async with asyncio.timeout(60):
        written = [await process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    lines = [line for output, _ in written for line in output.splitlines()]
    guard = plugin(store=store, token_key=SECRET)
    answer, facts = await back(guard, [json.loads(line) for line in lines], context_of())
    await guard.shutdown()
    assert answer == [f"{name}{number}@example.com" for name in ("ann", "bob", "cid") for number in range(10)]
    assert facts == {"restored": 30}


async def test_tokens_in_a_store_are_forgotten_in_time(tmp_path: Path) -> None:
    guard = plugin(store=str(tmp_path / "tokens.db"), token_key=SECRET, token_ttl_s=60)
    with clock.use_clock(clock.FixedClock(datetime(2026, 1, 1, tzinfo=UTC))) as time:
        seen = await out(guard, {"to": MAIL}, context_of())
        time.advance(59)
        assert (await back(guard, seen["to"], context_of()))[0] == MAIL
        time.advance(2)
        assert (await back(guard, seen["to"], context_of()))[0] == seen["to"]
    await guard.shutdown()


async def test_tokens_under_another_key_stay_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = str(tmp_path / "tokens.db")
    first, second = plugin(store=store, token_key=SECRET), plugin(store=store, token_key=SECRET[::-1])
    seen = await out(first, {"to": MAIL}, context_of())
    with caplog.at_level(logging.WARNING):
        assert await back(second, seen["to"], context_of()) == (seen["to"], {})
    assert caplog.messages == ["plugin `guard`: tokens in the store are sealed with another key, and stay"]
    await first.shutdown()
    await second.shutdown()


@pytest.mark.parametrize(
    ("policy", "answer"),
    [("deny", None), ("allow", "[EMAIL-REDACTED]"), ("local", "[EMAIL-TOKEN#")],
)
async def test_while_the_store_is_away_nothing_leaks(tmp_path: Path, policy: str, answer: str | None) -> None:
    broken = tmp_path / "tokens.db"
    broken.write_bytes(b"this is no database" * 100)
    guard, context = plugin(store=str(broken), token_key=SECRET, on_store_error=policy), context_of()
    result = await guard.tool_pre_invoke(ToolPreInvokePayload(name="t", args={"to": MAIL}), context)
    if answer is None:
        assert result.violation is not None
        assert (result.violation.code, result.violation.http_status_code) == ("STORE_UNAVAILABLE", 503)
    else:
        assert result.modified_payload is not None
        assert result.modified_payload.args["to"].startswith(answer)
    after, facts = await back(guard, f"[EMAIL-TOKEN#aaaaaaaaaaaaaaaa] {MAIL}", context)
    assert after == "[EMAIL-TOKEN#aaaaaaaaaaaaaaaa] [EMAIL-REDACTED]", "the way back is redacted in any case"
    assert facts.get("store_error") == (None if policy == "local" else policy)
    await guard.shutdown()
