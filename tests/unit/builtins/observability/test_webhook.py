"""The webhook, seen through a manager and a real HTTP server that answers, hangs, fails or is not there."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from http_receivers import Receiver, after, hang_up, receiving, status
from ports import free_port
from pydantic import ValidationError

from cpex.builtins.observability._delivery import SinkCount, sink_counts, sink_queues
from cpex.builtins.observability.webhook import WebhookPlugin, _retry_after_s
from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload, clock
from cpex.framework.pipeline import stepping

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
QUICK = {"batch_interval_s": 0.01, "retry_delay_s": 0.001, "retry_max_s": 0.01, "timeout_s": 60, "drain_s": 60}
"""Pauses that are not worth waiting for, and patience with a busy machine."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def webhook(url: str, mode: str = "fire_and_forget", name: str = "hook", **config: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "webhook",
        "mode": mode,
        "hooks": ["tool_pre_invoke"],
        "config": {"url": url, **QUICK, **config},
    }


async def call(manager: TenantPluginManager, *request_ids: str) -> None:
    for request_id in request_ids:
        payload = ToolPreInvokePayload(name="search", args={"q": "ann@example.com"})
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=request_id))
        assert result.continue_processing
        await result.wait_for_background_tasks()


async def next_of(receiver: Receiver) -> Any:
    return await asyncio.to_thread(receiver.next)


def sink(manager: TenantPluginManager, name: str = "hook") -> WebhookPlugin:
    plugin = manager.get_plugin(name)
    assert isinstance(plugin, WebhookPlugin)
    return plugin


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name.endswith("observability.webhook")]


async def test_decisions_are_posted_in_batches(running: Any, receiver: Receiver) -> None:
    async with running(webhook(receiver.url, batch_interval_s=60, batch_max=3)) as manager:
        await call(manager, "1", "2", "3", "4")
        full = await next_of(receiver)
        # The fourth goes at the end, although its time has not come.
    rest = await next_of(receiver)
    assert [each["request_id"] for each in full.events] == ["1", "2", "3"]
    assert [(each["request_id"], each["type"], each["outcome"]) for each in rest.events] == [
        ("4", "decision", "allowed")
    ]
    assert full.headers["content-type"] == "application/json"
    assert "ann@example.com" not in full.body.decode()


async def test_a_record_goes_alone_when_no_other_comes_in_time(running: Any, receiver: Receiver) -> None:
    async with running(webhook(receiver.url, batch_max=1000)) as manager:
        await call(manager, "1")
        assert len((await next_of(receiver)).events) == 1


async def test_an_address_with_a_token_reaches_no_log(
    running: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(webhook(f"{receiver.url}?token=hunter2")) as manager:
        await call(manager, "1")
        await next_of(receiver)
    assert "hunter2" not in caplog.text
    # What others do with the HTTP client is their log's.
    async with httpx2.AsyncClient() as theirs:
        await theirs.post(f"{receiver.url}?of=theirs", json={"events": []})
    assert "?of=theirs" in caplog.text


async def test_a_request_is_signed_and_can_be_verified_by_its_receiver(running: Any, receiver: Receiver) -> None:
    config = webhook(receiver.url, secret=SECRET, headers={"Authorization": "Bearer b0b"})
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))):
        async with running(config) as manager:
            await call(manager, "1")
            found = await next_of(receiver)
    assert found.headers["webhook-timestamp"] == "1893456000"
    signed = f"{found.headers['webhook-id']}.1893456000.".encode() + found.body
    expected = base64.b64encode(hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()).decode()
    assert found.headers["webhook-signature"] == f"v1,{expected}"
    assert found.headers["authorization"] == "Bearer b0b"


@pytest.mark.parametrize("trouble", [status(500), status(503, Retry_After="0"), status(429), hang_up])
async def test_a_batch_that_was_not_taken_is_sent_again_under_the_same_id(
    running: Any, receiver: Receiver, trouble: Any
) -> None:
    for _ in range(2):
        receiver.answers.put(trouble)
    async with running(webhook(receiver.url)) as manager:
        plugin = sink(manager)
        await call(manager, "1")
        attempts = [await next_of(receiver) for _ in range(3)]
    assert len({each.headers["webhook-id"] for each in attempts}) == 1
    assert len({each.body for each in attempts}) == 1
    assert (plugin.delivery.delivered, plugin.delivery.dropped) == (1, 0)


async def test_a_receiver_that_is_restarted_gets_what_came_meanwhile(running: Any) -> None:
    port = free_port()
    # Full with the second record, so that the receiver has all that it is meant to have when it has one request.
    config = webhook(f"http://127.0.0.1:{port}/", attempts=10_000, batch_max=2, batch_interval_s=3600)
    async with running(config) as manager:
        plugin = sink(manager)
        await call(manager, "1", "2")
        with receiving(port) as first:
            seen = (await next_of(first)).events
        await call(manager, "3")
        with receiving(port) as second:
            await manager.shutdown()
            seen += (await next_of(second)).events
    assert [each["request_id"] for each in seen] == ["1", "2", "3"]
    assert (plugin.delivery.delivered, plugin.delivery.dropped) == (3, 0)


async def test_a_dead_receiver_costs_the_caller_nothing_and_is_warned_about_once(
    running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{free_port()}/hook?token=t0psecret"
    config = webhook(url, mode="sequential", name="dead", queue_max=5, batch_interval_s=60, drain_s=0)
    async with running(config) as manager:
        plugin = sink(manager, "dead")
        # Each call comes back although nothing can be delivered; what does not fit is dropped.
        await call(manager, *map(str, range(20)))
        await manager.executor.drain()
        assert sink_queues()["dead"] == 5
        assert plugin.delivery.dropped == 15
    assert plugin.delivery.dropped == 20
    assert sink_counts()[SinkCount("dead", "dropped")] == 20
    assert sink_queues().get("dead", 0) == 0
    assert warnings(caplog) == [
        "Plugin 'dead': records are being dropped: the queue is full; later ones are counted and not logged until "
        "records are delivered again",
        "Plugin 'dead': 20 records were dropped in all, 0 delivered",
    ]
    assert "t0psecret" not in caplog.text


async def test_a_receiver_that_never_answers_is_given_up_and_keeps_nobody_from_shutting_down(
    running: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    never = threading.Event()
    receiver.answers.put(after(never))
    try:
        async with running(webhook(receiver.url, drain_s=0.01, timeout_s=60)) as manager:
            plugin = sink(manager)
            await call(manager, "1")
            await next_of(receiver)
        assert plugin.delivery.dropped == 1
        assert "they were not delivered within 0.01 s" in caplog.text
    finally:
        never.set()


async def test_a_shutdown_that_is_cut_off_before_the_drain_is_over_drops_out_loud_and_closes_the_connections(
    running: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The grace is no setting, and a busy machine must not look like a clean-up that hangs.
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", 60)
    never = threading.Event()
    receiver.answers.put(after(never))
    config = webhook(receiver.url, name="cut", drain_s=60, timeout_s=60) | {"shutdown_timeout_s": 0.05}
    try:
        async with running(config) as manager:
            plugin = sink(manager, "cut")
            await call(manager, "1")
            await next_of(receiver)
            await call(manager, "2")
        assert (plugin.delivery.dropped, plugin._client) == (2, None)
    finally:
        never.set()
    assert sink_counts()[SinkCount("cut", "dropped")] == 2
    assert sink_queues().get("cut", 0) == 0
    assert warnings(caplog) == [
        "Plugin 'cut': `drain_s` (60s) is not shorter than the plugin's `shutdown_timeout_s` (0.05s), which cuts it "
        "off: records that wait by then are dropped; lower the one or raise the other",
        "Plugin 'cut': records are being dropped: the shutdown of the sink was cut off before its `drain_s` of 60 s "
        "were over; later ones are counted and not logged until records are delivered again",
        "Plugin 'cut': 2 records were dropped in all, 0 delivered",
    ]


@pytest.mark.parametrize(("drain_s", "limit_s", "is_told"), [(3, 30, False), (30, 30, True), (31, 30, True)])
def test_a_drain_that_its_shutdown_would_cut_off_is_warned_of(
    caplog: pytest.LogCaptureFixture, drain_s: float, limit_s: float, is_told: bool
) -> None:
    settings = {"url": "http://127.0.0.1:1", "drain_s": drain_s}
    WebhookPlugin(PluginConfig(name="a", kind="webhook", shutdown_timeout_s=limit_s, config=settings))
    assert ("is not shorter than the plugin's `shutdown_timeout_s`" in caplog.text) is is_told


async def test_a_slow_receiver_is_tried_again_after_the_time_that_a_request_may_take(
    running: Any, receiver: Receiver
) -> None:
    later = threading.Event()
    receiver.answers.put(after(later))
    try:
        async with running(webhook(receiver.url, timeout_s=0.05, attempts=10_000)) as manager:
            await call(manager, "1")
            first, second = await next_of(receiver), await next_of(receiver)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
    finally:
        later.set()


async def test_an_outage_is_told_before_anything_is_dropped_and_so_is_its_end(
    running: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(6):
        receiver.answers.put(status(503))
    async with running(webhook(receiver.url)) as manager:
        await call(manager, "1")
        for _ in range(7):
            await next_of(receiver)
    assert warnings(caplog) == [
        f"Plugin 'hook': records wait: `http://127.0.0.1:{receiver.port}/hook` answered with status 503, 3 times in a "
        "row; trying on",
        "Plugin 'hook': records are delivered again; 0 have been dropped so far",
    ]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(401), "answered with status 401"),
        (status(302, Location="http://127.0.0.1:1/"), "answered with status 302 (redirects are not followed)"),
    ],
)
async def test_a_refusal_for_good_is_not_tried_again(
    running: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: Any, why: str
) -> None:
    receiver.answers.put(answer)
    async with running(webhook(receiver.url)) as manager:
        plugin = sink(manager)
        await call(manager, "1")
        await next_of(receiver)
        await call(manager, "2")
        await next_of(receiver)
    assert (plugin.delivery.dropped, plugin.delivery.delivered) == (1, 1)
    assert f"`http://127.0.0.1:{receiver.port}/hook` {why}" in warnings(caplog)[0]
    assert "records are delivered again; 1 have been dropped so far" in caplog.text
    assert "t0psecret" not in caplog.text


async def test_a_batch_is_dropped_after_its_last_attempt(running: Any, receiver: Receiver) -> None:
    for _ in range(3):
        receiver.answers.put(status(500))
    async with running(webhook(receiver.url, attempts=3)) as manager:
        plugin = sink(manager)
        await call(manager, "1")
        for _ in range(3):
            await next_of(receiver)
        await call(manager, "2")
        assert [each["request_id"] for each in (await next_of(receiver)).events] == ["2"]
    assert (plugin.delivery.dropped, plugin.delivery.delivered) == (1, 1)


async def test_no_task_and_no_connection_is_left_behind(running: Any, receiver: Receiver) -> None:
    before = asyncio.all_tasks()
    async with running(webhook(receiver.url)) as manager:
        await call(manager, "1")
        await next_of(receiver)
    assert asyncio.all_tasks() == before


async def test_a_sink_may_be_shut_down_twice_and_started_again(receiver: Receiver) -> None:
    config = {"url": receiver.url, **QUICK}
    plugin = WebhookPlugin(PluginConfig(name="a", kind="webhook", hooks=["tool_pre_invoke"], config=config))
    assert not plugin.delivery.put(b"{}\n")
    for _ in range(2):
        await plugin.initialize()
        await plugin.initialize()
        assert plugin.delivery.put(b'{"n":1}\n')
        await plugin.shutdown()
        await plugin.shutdown()
        assert (await next_of(receiver)).events == [{"n": 1}]
    assert not plugin.delivery.put(b"{}\n")
    assert (plugin.delivery.delivered, plugin.delivery.dropped) == (2, 2)


async def test_the_queue_is_bounded_in_bytes_too(receiver: Receiver) -> None:
    config = {"url": receiver.url, **QUICK, "queue_max_bytes": 25, "batch_interval_s": 60}
    plugin = WebhookPlugin(PluginConfig(name="a", kind="webhook", config=config))
    await plugin.initialize()
    assert [plugin.delivery.put(b'{"n":1}\n') for _ in range(4)] == [True, True, True, False]
    await plugin.shutdown()
    assert len((await next_of(receiver)).events) == 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), ("Tue, 01 Jan 2030 00:00:30 GMT", 30.0), ("soon", None), ("-1", None)],
)
def test_a_receiver_may_say_when_it_wants_to_be_tried_again(value: str | None, seconds: float | None) -> None:
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))):
        assert _retry_after_s(value) == seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "url\n  Field required"),
        ({"url": "ftp://x"}, "this is no http:// or https:// address"),
        ({"url": "http://x", "secret": "t0psecret"}, "a secret is `whsec_` and base64 of 24 bytes or more"),
        ({"url": "http://x", "headers": {"Webhook-Id": "t0psecret"}}, "the header `Webhook-Id` is the sink's own"),
        ({"url": "http://t0psecret", "batch_max": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_without_being_quoted(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        WebhookPlugin(PluginConfig(name="a", kind="webhook", config=settings))
    assert message in str(refusal.value)
    assert "t0psecret" not in str(refusal.value)


async def test_values_that_may_not_be_redacted_yet_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    config = {"url": "http://127.0.0.1:1", "records": ["attempt"], "include_payload": "full"}
    WebhookPlugin(PluginConfig(name="a", kind="webhook", mode="sequential", config=config))
    assert "may see them before they are redacted" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
