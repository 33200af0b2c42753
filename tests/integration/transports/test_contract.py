"""The same plugin gives the same answer wherever it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from integration.transports.servers import NAME, Entry
from integration.transports.sites import SITES, Site, host
from pydantic import SecretStr
from support import other_tasks

from cpex.framework import GlobalContext, PluginError, ToolPostInvokePayload, ToolPreInvokePayload, UserContext
from cpex.framework.extensions import Extensions, HttpExtension, SecurityExtension
from cpex.framework.manager import TenantPluginManager

pytestmark = pytest.mark.asyncio(loop_scope="module")
NUMBERS_AT = ("in-process", "mcp-stdio", "unix", "grpc")
"""Two transports whose messages know one kind of number, and two to compare them with."""
Started = Callable[..., AbstractAsyncContextManager[TenantPluginManager]]


@pytest.fixture(params=SITES, ids=lambda site: site.name)
def site(request: pytest.FixtureRequest) -> Site:
    """Each place where the plugin may run."""
    found: Site = request.param
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[Site, Entry], Awaitable[Entry]]]:
    """Servers that the tests share, as hosts would: one for each site and entry, started when it is first asked for."""
    entries: dict[tuple[str, str], Entry] = {}
    async with AsyncExitStack() as servers:

        async def entry_at(site: Site, server: Entry) -> Entry:
            key = (site.name, json.dumps(server, sort_keys=True))
            if key not in entries:
                folder = tmp_path_factory.mktemp(site.name)
                entries[key] = await servers.enter_async_context(site.start(folder, server))
            return entries[key]

        yield entry_at


@pytest.fixture
def started(site: Site, tmp_path: Path, running: Callable[[Site, Entry], Awaitable[Entry]]) -> Started:
    """Starts a host that reaches the plugin at the site; fields of the server's entry, then of the host's."""

    @asynccontextmanager
    async def start(server: Entry | None = None, **local: Any) -> AsyncIterator[TenantPluginManager]:
        async with host(tmp_path, await running(site, server or {}), **local) as manager:
            yield manager

    return start


def lossless(site: Site, what: str) -> None:
    """Leave a test out where the transport is documented to lose something."""
    if what in site.lost:
        pytest.skip(f"{site.name} does not carry {what}; its page says so")


async def call(manager: TenantPluginManager, name: str, args: dict[str, Any] | None = None, **options: Any) -> Any:
    """Call the tool hook; the merged result."""
    payload = ToolPreInvokePayload(name=name, args=args or {})
    context = options.pop("context", None) or GlobalContext(request_id="r1")
    async with asyncio.timeout(60):
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, context, **options)
    return result


async def test_an_allowed_call_comes_back_unchanged(started: Started) -> None:
    async with started() as manager:
        result = await call(manager, "nothing", {"a": 1})
    assert (result.continue_processing, result.modified_payload, result.violation) == (True, None, None)
    assert [record.status for record in result.executions] == ["completed"]


async def test_values_arrive_as_what_they_are(started: Started, site: Site) -> None:
    lossless(site, "types")
    args = {
        "int": 3,
        "big": 2**70,
        "float": 3.0,
        "none": None,
        "bool": True,
        "text": 'ü "\\ \u2028 \x00 \n 🦊',
        "bytes": b"\x00\xff",
        "set": {1},
        "frozen": frozenset({"a"}),
        "tuple": (1, (2,)),
        "date": date(2024, 2, 29),
        "time": datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC),
        "decimal": Decimal("1.10"),
        "uuid": UUID(int=7),
        "nested": {"list": [{"x": [1, 2.5, None]}], "keys": {1: "one", (1, 2): "pair"}},
        "tagged": {"$cpex": "set", "v": [1]},
    }
    async with started() as manager:
        result = await call(manager, "describe", args)
    told = {name: f"{type(value).__name__} {value!r}" for name, value in args.items()}
    assert {name: result.metadata["told"][name] for name in args} == told


@pytest.mark.parametrize("site", [each for each in SITES if each.name in NUMBERS_AT], ids=lambda each: each.name)
async def test_a_host_learns_settings_as_they_stand_in_the_servers_file(started: Started, site: Site) -> None:
    settings = {"limit": 3, "share": 0.5, "on": True, "deep": [{"minus": -1}]}
    async with started({"config": settings}) as manager:
        plugin = manager.get_plugin(NAME)
        assert plugin is not None
        assert json.dumps(plugin.config.config, sort_keys=True) == json.dumps(settings, sort_keys=True)


@pytest.mark.conformance("E13")
async def test_the_plugin_knows_the_whole_request(started: Started, site: Site) -> None:
    lossless(site, "user_context")
    user = UserContext(user_id="u7", email="ann@example.com", groups=["ops"], attributes={"level": 3})
    context = GlobalContext(
        request_id="r9", user={"email": "ann@example.com"}, user_context=user, tenant_id="t1", content_type="text/plain"
    )
    async with started() as manager:
        result = await call(manager, "describe", context=context)
    expected = ("r9", {"email": "ann@example.com"}, user.model_dump(mode="json"), "t1", "text/plain")
    assert eval(result.metadata["told"]["context"]) == expected


@pytest.mark.conformance("E11")
async def test_a_rewrite_keeps_what_it_did_not_touch(started: Started) -> None:
    args = {"n": 3, "when": date(2024, 2, 29), "tags": {"a", "b"}, "keep": {"deep": [1, None]}}
    async with started() as manager:
        result = await call(manager, "add", args)
    assert result.modified_payload.args == {**args, "added": [1, 2.5, None, "ü\n\u2028"]}
    assert [type(value) for value in result.modified_payload.args.values()][:3] == [int, date, set]
    assert (result.metadata, result.http_headers, result.retry_delay_ms) == ({"note": 1}, {"x-a": "b"}, 7)


@pytest.mark.conformance("E12")
async def test_a_denial_says_all_that_it_says(started: Started) -> None:
    async with started() as manager:
        result = await call(manager, "deny")
    violation = result.violation
    assert result.continue_processing is False
    assert (violation.reason, violation.description, violation.code) == ("no", "not today", "NO")
    assert violation.details == {"count": 3, "share": 0.5, "list": [1, {"a": None}]}
    assert (violation.mcp_error_code, violation.http_status_code) == (-32001, 429)
    assert (violation.http_headers, violation.plugin_name) == ({"Retry-After": "3"}, "contract")
    assert result.denial_metadata == {"score": 0.25, "limit": 10, "hard": True}
    assert (result.http_headers, result.retry_delay_ms) == ({"x-limit": "10"}, 3000)


async def test_a_failing_plugin_fails_the_call_with_its_reason(started: Started) -> None:
    async with started() as manager:
        with pytest.raises(PluginError, match="this plugin is broken") as raised:
            await call(manager, "raise")
        assert raised.value.error.plugin_name == "contract"
        assert (await call(manager, "nothing")).continue_processing


async def test_an_error_of_a_plugins_own_making_arrives_as_it_was_made(started: Started) -> None:
    async with started() as manager:
        with pytest.raises(PluginError) as raised:
            await call(manager, "fail_in_detail")
    told = raised.value.error
    assert (told.message, told.plugin_name, told.code, told.details) == (
        "in detail",
        "p",
        "DETAILED",
        {"where": ["here", 1]},
    )


async def test_an_ignored_failure_is_on_record(started: Started) -> None:
    async with started(on_error="ignore") as manager:
        result = await call(manager, "raise")
    assert result.continue_processing
    assert [record.status for record in result.executions] == ["error"]


async def test_a_raised_denial_is_a_denial(started: Started) -> None:
    async with started(on_error="ignore") as manager:
        result = await call(manager, "raise_denial")
    assert (result.continue_processing, result.violation.code) == (False, "RAISED")


async def test_the_hosts_mode_decides_whatever_the_server_is_set_to(started: Started) -> None:
    async with started({"mode": "audit"}, mode="sequential") as manager:
        assert (await call(manager, "deny")).continue_processing is False


async def test_a_denial_in_audit_mode_lets_the_call_go_on(started: Started) -> None:
    async with started(mode="audit") as manager:
        result = await call(manager, "deny")
    (record,) = result.executions
    assert (result.continue_processing, record.requested_allow, record.error_code) == (True, False, "NO")


async def test_state_travels_from_pre_to_post_and_to_the_host(started: Started) -> None:
    context = GlobalContext(request_id="r1", state={"doomed": 1, "nested": {"kept": 1}, "same": {1, 2}})
    async with started() as manager:
        payload = ToolPreInvokePayload(name="remember", args={"what": "x"})
        _, table = await manager.invoke_hook("tool_pre_invoke", payload, context)
        assert context.state == {"nested": {"kept": 1, "deep": True}, "same": {1, 2}, "written": 5}
        post = ToolPostInvokePayload(name="remember", result="r")
        result, _ = await manager.invoke_hook("tool_post_invoke", post, context, table)
    told = result.modified_payload.result
    assert told == {"state": {"seen": {"n": 1, "list": ["x"]}}, "metadata": {"mine": "yes"}, "was": "r"}


EXTENSIONS = Extensions(
    http=HttpExtension(headers={"authorization": "Bearer x"}),
    security=SecurityExtension(labels=frozenset({"PII"})),
    custom={"k": {1}},
)


@pytest.mark.conformance("E13")
async def test_a_plugin_sees_and_changes_what_its_capabilities_open(started: Started, site: Site) -> None:
    lossless(site, "extensions")
    capabilities = ["read_labels", "append_labels"]
    async with started({"capabilities": capabilities}, capabilities=capabilities) as manager:
        result = await call(manager, "look", extensions=EXTENSIONS)
    told = {"slots": ["custom", "security"], "labels": ["PII"], "headers": None, "custom": {"k": {1}}}
    assert result.metadata == told
    assert result.modified_extensions.security.labels == {"PII", "SEEN"}
    assert result.modified_extensions.custom == {"by": "plugin", "n": 1}
    assert result.modified_extensions.http == EXTENSIONS.http


async def test_either_operator_can_withhold_a_capability(started: Started, site: Site) -> None:
    lossless(site, "extensions")
    async with started({"capabilities": ["read_headers"]}, capabilities=["read_labels"]) as manager:
        result = await call(manager, "look", extensions=EXTENSIONS)
    if site.one_operator:
        assert result.metadata["labels"] == ["PII"]
    else:
        assert (result.metadata["labels"], result.metadata["headers"]) == ([], None)
    assert result.modified_extensions is None or result.modified_extensions.security == EXTENSIONS.security


@pytest.mark.conformance("E11")
async def test_a_secret_stays_a_secret_and_survives_a_rewrite(started: Started, site: Site) -> None:
    async with started() as manager:
        result = await call(manager, "secret", {"secret": SecretStr("hunter2"), "other": 1})
    if site.name != "in-process":
        assert result.metadata == {"length": 10, "stars": True}
    assert result.modified_payload.args == {"secret": SecretStr("hunter2"), "other": 2}


async def test_a_secret_crosses_to_a_plugin_that_may_read_credentials(started: Started, site: Site) -> None:
    lossless(site, "secrets")
    async with started(capabilities=["read_inbound_credentials"]) as manager:
        result = await call(manager, "secret", {"secret": SecretStr("hunter2"), "other": 1})
    assert result.metadata == {"length": 7, "stars": False}


async def test_conditions_hold_on_either_side(started: Started) -> None:
    conditions = [{"tools": ["other"]}]
    async with started(conditions=conditions) as manager:
        assert (await call(manager, "deny")).continue_processing
    async with started({"conditions": conditions}) as manager:
        assert (await call(manager, "deny")).continue_processing


async def test_a_hanging_plugin_costs_its_timeout_and_the_next_call_works(started: Started) -> None:
    async with started() as manager:
        manager.executor.timeout = 0.5
        with pytest.raises(PluginError, match="timeout"):
            await call(manager, "hang")
        # On a machine that may have other things to do.
        manager.executor.timeout = 60
        result = await call(manager, "deny")
    assert result.violation.code == "NO"


async def test_a_cancelled_call_leaves_nothing_behind_and_the_next_one_gets_its_own_answer(started: Started) -> None:
    async with started() as manager:
        await call(manager, "nothing")
        before = other_tasks()
        for _ in range(3):
            task = asyncio.create_task(call(manager, "hang"))
            for _ in range(50):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await call(manager, "deny")).violation.code == "NO"
        # A transport may have a task that tells its peer of the cancellation.
        await asyncio.wait_for(asyncio.gather(*other_tasks() - before), timeout=60)


async def test_a_thousand_calls_at_once_each_get_their_own_answer(started: Started) -> None:
    async with started() as manager:
        # Each waits for all that came before it.
        manager.executor.timeout = 60
        calls = [call(manager, "echo", {"number": n, "turns": n % 7}) for n in range(1000)]
        results = await asyncio.gather(*calls)
    assert [result.metadata["number"] for result in results] == list(range(1000))


async def test_a_large_payload_crosses(started: Started) -> None:
    text = "ü" * 300_000
    async with started() as manager:
        result = await call(manager, "add", {"text": text, "numbers": list(range(10_000))})
    assert result.modified_payload.args["text"] == text
    assert result.modified_payload.args["numbers"] == list(range(10_000))
