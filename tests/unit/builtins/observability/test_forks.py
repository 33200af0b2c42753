"""Sinks and files of lines in processes that fork: what waits is delivered once, and nobody waits for a lost thread."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from http_receivers import Receiver, receiving

from cpex.builtins.observability._delivery import Delivery, SinkSettings, sink_queues

WAIT_S = 60
FORKING = str(Path(__file__).with_name("forking.py"))


def fork_with(kind: str, how: str, **config: Any) -> None:
    """Run a process that hands over `first`, `second` and `waits`, forks, and goes on in child and parent."""
    plugin = {
        "name": "sink",
        "kind": kind,
        "mode": "fire_and_forget",
        "hooks": ["tool_pre_invoke"],
        # Longer than the drain, which it would cut off.
        "shutdown_timeout_s": 2 * WAIT_S,
        # Two records go at once; one waits until another comes, or the end.
        "config": {"batch_max": 2, "batch_interval_s": 3600, "drain_s": WAIT_S, **config},
    }
    command = [sys.executable, FORKING, how, json.dumps(plugin)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=4 * WAIT_S, check=False)
    # The last word is each process's count of what has been delivered and dropped.
    assert (run.returncode, run.stdout, run.stderr) == (0, "child 1 0\nparent 4 0\n", "")


def batches(receiver: Receiver) -> list[list[str]]:
    found = []
    while True:
        try:
            found.append([each["request_id"] for each in receiver.requests.get_nowait().events])
        except queue.Empty:
            return found


@pytest.mark.parametrize(("how", "keeps_connections"), [("closed", False), ("running", False), ("running", True)])
def test_a_record_that_waits_at_a_fork_is_posted_by_the_parent_alone(how: str, keeps_connections: bool) -> None:
    with receiving(keeps_connections=keeps_connections) as receiver:
        fork_with("webhook", how, url=receiver.url)
        assert batches(receiver) == [["first", "second"], ["child"], ["waits", "parent"]]


@pytest.mark.parametrize("how", ["closed", "running"])
def test_a_record_that_waits_at_a_fork_is_written_by_the_parent_alone(tmp_path: Path, how: str) -> None:
    fork_with("file", how, path=str(tmp_path / "events.jsonl"))
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(each)["request_id"] for each in lines] == ["first", "second", "child", "waits", "parent"]


async def test_a_child_that_goes_on_with_the_loop_of_its_parent_delivers_its_own_records_only() -> None:
    sent: list[list[bytes]] = []

    async def send(batch: list[bytes]) -> None:
        sent.append(batch)

    delivery = Delivery("forked", SinkSettings(batch_interval_s=0.01), send, logging.getLogger(__name__))
    delivery.start()
    before = asyncio.all_tasks()
    delivery.put(b"of the parent")
    (inherited,) = asyncio.all_tasks() - before
    # What the fork does in the child: a copy of this process that goes on here is one that pytest would go on in.
    delivery.begin_anew()
    assert sink_queues()["forked"] == 0
    delivery.put(b"of the child")
    async with asyncio.timeout(WAIT_S):
        await inherited
        await delivery.stop()
    assert (sent, delivery.delivered, delivery.dropped) == ([[b"of the child"]], 1, 0)


JOURNAL_LOCKS = """
import fcntl, os, signal, sys, threading
from pathlib import Path
from cpex.builtins.observability._journal import Journal

path = Path(sys.argv[1])
journal = Journal(path)
journal.open()
other = os.open(path, os.O_RDONLY)
fcntl.flock(other, fcntl.LOCK_EX)
writer = threading.Thread(target=journal.append, args=[b'{"from":"parent"}\\n'])
writer.start()
while not journal._mutex.locked():
    writer.join(0.01)
child = os.fork()
if child == 0:
    signal.alarm(60)
    try:
        os.close(other)
        journal.append(b'{"from":"child"}\\n')
        journal.close()
    finally:
        os._exit(0)
fcntl.flock(other, fcntl.LOCK_UN)
writer.join()
print(os.waitpid(child, 0)[1])
"""
JOURNAL_TURN = """
import fcntl, os, sys
from pathlib import Path
from cpex.builtins.observability._journal import Journal

path = Path(sys.argv[1])
journal = Journal(path)
journal.open()
# As in the middle of an append.
fcntl.flock(journal._descriptor(), fcntl.LOCK_EX)
child = os.fork()
if child == 0:
    try:
        journal.close()
    finally:
        os._exit(0)
print(os.waitpid(child, 0)[1])
try:
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("still locked")
"""


def output_of(script: str, path: Path) -> str:
    command = [sys.executable, "-c", script, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=4 * WAIT_S, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_a_child_of_a_process_that_is_writing_to_a_file_writes_to_it_as_well(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert output_of(JOURNAL_LOCKS, path) == "0\n"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == ['{"from":"child"}', '{"from":"parent"}']


def test_a_child_that_closes_a_file_takes_its_parent_no_turn(tmp_path: Path) -> None:
    assert output_of(JOURNAL_TURN, tmp_path / "events.jsonl") == "0\nstill locked\n"
