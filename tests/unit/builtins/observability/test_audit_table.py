"""The audit log in an SQLite file: the same chain, whoever is killed while writing it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal
from cpex.builtins.observability.audit_log import AuditLogPlugin
from cpex.builtins.observability.audit_verify import verify_audit_log
from cpex.framework import GlobalContext, PluginConfig, PluginError, ToolPreInvokePayload

CALL = ToolPreInvokePayload(name="search", args={"q": "flights"})
WRITER = """
import itertools, sys
from pathlib import Path
from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal

name, count = sys.argv[2], int(sys.argv[3])
journal = TableJournal(Path(sys.argv[1]), chain=Chain())
journal.open()
for number in range(count) if count else itertools.count():
    journal.append(encode({"from": name, "n": number, "text": "x" * (number * 997 % 9_000)}))
    if number % 10 == 0:
        journal.sync()
    print(number, flush=True)
"""
FORKING = """
import os, sys
from pathlib import Path
from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal

journal = TableJournal(Path(sys.argv[1]), chain=Chain())
journal.open()
journal.append(encode({"from": "parent"}))
reports, report = os.pipe()
starts, start = os.pipe()
for name in "abc":
    if os.fork() == 0:
        try:
            for number in range(100):
                journal.append(encode({"from": name, "n": number}))
            os.write(report, b".")
            os.read(starts, 1)
            for number in range(100):
                journal.append(encode({"from": name, "n": number}))
            os.write(report, b"!")
        finally:
            os._exit(0)
os.close(report)
[os.read(reports, 1) for _ in "abc"]
journal.append(encode({"from": "parent"}))
journal.close()
os.write(start, b"...")
print([os.waitpid(-1, 0)[1] for _ in "abc"], os.read(reports, 10))
"""
KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


def audit(path: Path, mode: str = "fire_and_forget", **settings: Any) -> dict[str, Any]:
    return {
        "name": "audit",
        "kind": "observability.AuditLogPlugin",
        "mode": mode,
        "hooks": ["tool_pre_invoke"],
        "config": {"path": str(path), "format": "sqlite", **settings},
    }


def write(path: Path, *objects: dict[str, object], key: bytes | None = None) -> None:
    journal = TableJournal(path, chain=Chain(key))
    journal.open()
    journal.append(*(encode(each) for each in objects))
    journal.close()


def ask(path: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def start_writer(path: Path, name: str, count: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
@pytest.mark.parametrize("mode", ["fire_and_forget", "sequential"])
async def test_a_call_leaves_an_attempt_and_a_decision_that_can_be_asked_for(
    running: Any, log: Path, mode: str, fsync: str
) -> None:
    async with running(audit(log, mode, fsync=fsync)) as manager:
        await manager.invoke_hook("tool_pre_invoke", CALL, GlobalContext(request_id="r1", user="ann"))
    assert [each.name for each in log.parent.iterdir()] == ["audit.db"], "nothing is left beside a closed log"
    query = "SELECT line ->> 'type', line ->> 'entity', line ->> 'user' FROM records ORDER BY 1"
    assert ask(log, query) == [("attempt", "search", "ann"), ("decision", "search", "ann")]
    found = verify_audit_log(log)
    assert (found.broken, found.records, found.files) == (None, 2, [str(log)])


def test_a_row_is_the_line_that_a_file_of_lines_would_hold(log: Path, tmp_path: Path) -> None:
    lines = tmp_path / "audit.jsonl"
    journal = Journal(lines, chain=Chain())
    journal.open()
    journal.append(encode({"n": 1}), encode({"n": 2}))
    journal.close()
    write(log, {"n": 1}, {"n": 2})
    assert [line for (line,) in ask(log, "SELECT line FROM records")] == lines.read_text().splitlines()
    assert verify_audit_log(log).head == verify_audit_log(lines).head


@pytest.mark.parametrize("seed", range(4))
def test_processes_killed_while_writing_leave_one_chain_with_all_they_acknowledged(log: Path, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: set[tuple[str, int]] = set()
    for name in ("first", "second", "third"):
        writer = start_writer(log, name)
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(dice.randint(1, 60))]
        writer.send_signal(signal.SIGKILL)
        told += [line for line in writer.stdout if line.endswith("\n")]
        writer.stdout.close()
        assert writer.wait(timeout=90) == -signal.SIGKILL
        acknowledged |= {(name, int(number)) for number in told}
        found = verify_audit_log(log)
        assert (found.broken, found.torn_bytes) == (None, 0)
        kept = [json.loads(line) for (line,) in ask(log, "SELECT line FROM records ORDER BY seq")]
        assert acknowledged <= {(each["from"], each["n"]) for each in kept}
        assert [each["seq"] for each in kept] == list(range(1, found.records + 1))


def test_processes_that_write_at_once_make_one_chain(log: Path) -> None:
    writers = [start_writer(log, name, count=50) for name in "abc"]
    for writer in writers:
        writer.communicate(timeout=90)
        assert writer.returncode == 0
    found = verify_audit_log(log)
    assert (found.broken, found.records, found.head.seq) == (None, 150, 150)


def test_workers_that_were_forked_off_with_an_open_log_make_one_chain(log: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(log)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert run.stdout == "[0, 0, 0] b'!!!'\n", run.stderr
    found = verify_audit_log(log)
    assert (found.broken, found.records) == (None, 602)


def test_a_log_may_be_verified_while_it_is_written_to(log: Path) -> None:
    writer = start_writer(log, "a")
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        for _ in range(10):
            assert verify_audit_log(log).broken is None
    finally:
        writer.kill()
        writer.communicate(timeout=90)


def change(log: Path) -> None:
    ask(log, """UPDATE records SET line = replace(line, '"n":3', '"n":9') WHERE seq = 3""")


def remove(log: Path) -> None:
    ask(log, "DELETE FROM records WHERE seq = 3")


def swap(log: Path) -> None:
    ask(log, "UPDATE records SET seq = 40 WHERE seq = 4")
    ask(log, "UPDATE records SET seq = 4 WHERE seq = 5")
    ask(log, "UPDATE records SET seq = 5 WHERE seq = 40")


def insert(log: Path) -> None:
    ask(log, "INSERT INTO records VALUES (7, x'00ff')")


@pytest.mark.parametrize(
    ("tamper", "code", "row", "message"),
    [
        (change, "audit-changed", 3, "this record was changed after it was written"),
        (remove, "audit-gap", 3, "record 4 follows record 2"),
        (swap, "audit-gap", 4, "record 5 follows record 3"),
        (insert, "audit-changed", 7, "this is no sealed record"),
    ],
)
def test_the_first_broken_link_is_named_with_its_row(
    log: Path, tamper: Callable[[Path], None], code: str, row: int, message: str
) -> None:
    write(log, *({"n": number} for number in range(1, 7)))
    tamper(log)
    broken = verify_audit_log(log).broken
    assert broken is not None
    assert (broken.code, broken.file, broken.line, broken.message) == (code, str(log), row, message)


def test_rows_taken_from_the_end_show_against_a_head_that_was_noted(log: Path) -> None:
    write(log, {"n": 1}, {"n": 2})
    head = verify_audit_log(log).head
    ask(log, "DELETE FROM records WHERE seq = 2")
    assert verify_audit_log(log).holds
    broken = verify_audit_log(log, expect={head.seq: head.hash}).broken
    assert broken is not None
    assert broken.code == "audit-head"


def test_a_key_keeps_those_who_have_none_from_writing_a_chain(log: Path, tmp_path: Path) -> None:
    (tmp_path / "audit.key").write_bytes(KEY)
    write(log, {"n": 1}, key=KEY)
    assert verify_audit_log(log, key_file=tmp_path / "audit.key").holds
    with pytest.raises(OSError, match="sealed with a key, so nothing can follow its last record; move the file"):
        write(log, {"n": 2})


def test_only_the_owner_may_read_what_is_written(log: Path) -> None:
    journal = TableJournal(log, chain=Chain())
    journal.open()
    journal.append(encode({"n": 1}))
    assert {stat.S_IMODE(each.stat().st_mode) for each in log.parent.iterdir()} == {0o600}
    journal.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database, but text", "file is not a database"),
        ("CREATE TABLE others (a)", "it holds something else; name a file of its own"),
        ("CREATE TABLE records (a)", "no such column: line"),
    ],
)
async def test_a_file_of_others_stops_the_start_and_stays(log: Path, content: str | bytes, message: str) -> None:
    if isinstance(content, bytes):
        log.write_bytes(content)
    else:
        ask(log, content)
    plugin = AuditLogPlugin(PluginConfig.model_validate(audit(log)))
    with pytest.raises(PluginError) as failure:
        await plugin.initialize()
    assert failure.value.error.message == (
        f"audit log `{log}` cannot be written: {message}; check the folder, its rights and free space"
    )
    assert not isinstance(content, bytes) or log.read_bytes() == content


async def test_a_file_that_another_process_is_writing_to_is_waited_for_off_the_loop(running: Any, log: Path) -> None:
    async with running(audit(log, "audit")) as manager:
        peer = sqlite3.connect(log, isolation_level=None)
        peer.execute("BEGIN IMMEDIATE")
        # It ends as soon as the loop is free, which shows that nobody waits there.
        asyncio.get_running_loop().call_soon(peer.rollback)
        await manager.invoke_hook("tool_pre_invoke", CALL, GlobalContext(request_id="r1"))
        peer.close()
        assert ask(log, "SELECT line ->> 'type' FROM records WHERE seq = 1") == [("attempt",)]


def test_a_record_that_does_not_fit_is_reported_and_the_log_goes_on(log: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal
journal = TableJournal(Path(sys.argv[1]), chain=Chain())
journal.open()
journal.append(encode({"n": 1}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
try:
    journal.append(encode({"text": "x" * 200_000}))
except OSError as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
journal.append(encode({"n": 2}))
journal.close()
"""
    run = subprocess.run([sys.executable, "-c", program, str(log)], capture_output=True, text=True, timeout=90)
    assert (run.returncode, run.stdout) == (0, "OSError\n"), run.stderr
    assert ask(log, "SELECT line ->> 'n' FROM records") == [(1,), (2,)]
    assert verify_audit_log(log).holds


def test_what_waits_for_the_table_is_carried_over_now_and_then(log: Path) -> None:
    journal = TableJournal(log, chain=Chain())
    journal.open()
    for number in range(1_000):
        journal.append(encode({"n": number}))
    assert log.stat().st_size < 20_000
    journal.sync()
    assert log.stat().st_size > 100_000
    journal.close()
    journal.sync()


def test_a_closed_log_takes_no_records(log: Path) -> None:
    journal = TableJournal(log, chain=Chain())
    for _ in range(2):
        journal.open()
        journal.close()
    with pytest.raises(OSError, match="the file is closed"):
        journal.append(encode({"n": 1}))


def test_a_file_that_cannot_be_read_as_a_table_is_an_error_and_no_broken_link(log: Path) -> None:
    ask(log, "CREATE TABLE others (a)")
    with pytest.raises(OSError, match="no such table: records"):
        verify_audit_log(log)


def test_setting_files_aside_is_refused() -> None:
    config = {"format": "sqlite", "rotate_bytes": 1000}
    with pytest.raises(ValidationError, match="`rotate_bytes` sets files of JSON lines aside; leave it out with `form"):
        AuditLogPlugin(PluginConfig(name="a", kind="k", config=config))
