"""What is kept in a shared store holds across processes and restarts, to the last call."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_servers import PATIENT, PROGRAMS, running_cluster, running_redis

from cpex.builtins.security.token_budget import TokenBudgetPlugin
from cpex.framework import GlobalContext, PluginConfig, PluginContext, ToolPreInvokePayload
from cpex.framework.models import HookOutcome

PROCESSES = 8
ATTEMPTS = 150
LIMIT = 400
WORKER = """
import asyncio, os, sys
from cpex.builtins.security.circuit import Circuit, Terms
from cpex.builtins.store.port import Rate
from cpex.builtins.store.redis import RedisStore
from cpex.builtins.store.sqlite import SqliteStore

target, attempts, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rate = Rate.per_minute(1, limit)
# Redis forgets by its own clock, whatever the time that it is told: nothing may be forgotten while this goes on.
hour = 3600
terms = Terms(failures=1, rate=0, window_s=hour, open_s=1, max_open_s=1, trial_s=hour)

async def main():
    store = SqliteStore(target, timeout_s=60) if "://" not in target else RedisStore(target)
    # The connection stands before the start is given, so that all begin together.
    await store.get("warm", now_s=0)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(attempts):
        taken = await store.take("bucket", rate, now_s=1e9)
        added = await store.add("counter", 1, now_s=1e9, limit=limit, ttl_s=hour)
        slot = await store.take_slot("window", limit=limit, window_s=hour, now_s=1e9)
        first = await store.compare_and_set(f"lock {number}", None, "mine", now_s=1e9)
        circuit = Circuit(f"circuit {number}", terms)
        await circuit.leave(store, "early", failed=True, now_s=1e9)
        gate = await circuit.enter(store, str(os.getpid()), 1e9 + 1)
        answers = {"bucket": taken.accepted, "counter": added.accepted, "window": slot.accepted, "lock": first,
                   "trial": gate.passes}
        print(*(name for name, accepted in answers.items() if accepted))
    await store.close()

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", *PROGRAMS, "cluster"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What `store:` names, empty."""
    if request.param == "sqlite":
        yield str(tmp_path / "state.db")
        return
    if request.param == "cluster":
        with running_cluster() as cluster:
            yield f"{cluster.url}{PATIENT}"
        return
    with running_redis(program=request.param) as server:
        yield f"{server.fresh_url()}{PATIENT}"


def test_eight_processes_together_get_exactly_the_limit(target: str) -> None:
    command = [sys.executable, "-c", WORKER, target, str(ATTEMPTS), str(LIMIT)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        answers = [worker.communicate(timeout=300)[0].split() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert [worker.returncode for worker in workers] == [0] * PROCESSES
    allowed = Counter(word for words in answers for word in words)
    assert allowed == {"bucket": LIMIT, "counter": LIMIT, "window": LIMIT, "lock": ATTEMPTS, "trial": ATTEMPTS}


async def test_a_budget_and_its_refunds_survive_a_restart(target: str) -> None:
    config = PluginConfig(name="b", kind="x.Y", hooks=["tool_pre_invoke"], config={"budget": 10, "store": target})
    payload = ToolPreInvokePayload(name="t", args={"q": "x" * 8})
    context = PluginContext(global_context=GlobalContext(request_id="r", metadata={"session_id": "s"}))
    before = TokenBudgetPlugin(config)
    for allowed in (True, False):
        assert (await before.tool_pre_invoke(payload, context)).continue_processing
        await before.hook_completed(HookOutcome("tool_pre_invoke", "r", allowed, None, payload))
    await before.shutdown()
    after = TokenBudgetPlugin(config)
    results = [await after.tool_pre_invoke(payload, context) for _ in range(2)]
    await after.shutdown()
    assert results[0].metadata == {"b": {"tokens": 4, "used": 8, "remaining": 2}}
    assert results[1].violation is not None
    assert results[1].violation.details == {"used": 8, "budget": 10, "requested": 4, "key": "session"}
