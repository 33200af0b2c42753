"""The chain of an audit log: it holds after any crash, and over files and processes, and shows every other change."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.observability import audit_verify
from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode
from cpex.builtins.observability.audit_verify import Verification, verify_audit_log
from cpex.framework import GlobalContext, ToolPostInvokePayload, ToolPreInvokePayload

WRITER = """
import itertools, sys
from pathlib import Path
from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode

path, name, count, rotate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) or None
journal = Journal(path, rotate_bytes=rotate, rotate_keep=10_000, chain=Chain())
journal.open()
for number in range(count) if count else itertools.count():
    journal.append(encode({"from": name, "n": number, "text": "x" * (number * 997 % 9_000)}))
    print(number, flush=True)
"""
KEY = "0123456789abcdef0123456789abcdef"


def start_writer(path: Path, name: str, count: int = 0, rotate: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count), str(rotate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def write(path: Path, *objects: dict[str, object], key: bytes | None = None, **options: Any) -> None:
    journal = Journal(path, chain=Chain(key), **options)
    journal.open()
    for each in objects:
        journal.append(encode(each))
    journal.close()


def numbered(count: int) -> list[dict[str, object]]:
    return [{"n": number, "text": 'quote " ü'} for number in range(1, count + 1)]


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fault(found: Verification) -> tuple[str, int, str]:
    assert found.broken is not None
    return found.broken.code, found.broken.line, found.broken.message


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_a_line_can_be_checked_with_nothing_but_a_hash_of_its_bytes(log: Path) -> None:
    import hashlib

    write(log, *numbered(2))
    first, second = log.read_bytes().splitlines()
    without_hash, _, own = second.rpartition(b',"hash":')
    assert hashlib.sha256(without_hash + b"}").hexdigest() == json.loads(own[:-1])
    assert json.loads(second)["prev"] == json.loads(first)["hash"]


def test_a_crash_at_any_byte_leaves_a_log_that_holds_up_to_the_last_whole_line_and_goes_on(log: Path) -> None:
    write(log, *numbered(3))
    whole = log.read_bytes()
    for cut in range(len(whole) + 1):
        log.write_bytes(whole[:cut])
        lines, torn = whole[:cut].count(b"\n"), cut - (whole[:cut].rfind(b"\n") + 1)
        found = verify_audit_log(log)
        assert (found.holds, found.records, found.torn_bytes) == (True, lines, torn), cut
        write(log, {"n": "after"})
        found = verify_audit_log(log)
        assert (found.holds, found.torn_bytes, written(log)[-1]["n"]) == (True, 0, "after"), cut
        # What was torn is on record, unless it lacked nothing but its line end.
        assert found.records == lines + 1 + (torn > 0), cut


def test_a_crash_at_any_byte_of_mending_is_mended_in_turn(log: Path) -> None:
    write(log, *numbered(1))
    torn = log.read_bytes() + b'{"seq":2,"n": "half'
    log.write_bytes(torn)
    write(log)
    mended = log.read_bytes()
    for cut in range(len(torn), len(mended)):
        log.write_bytes(mended[:cut])
        write(log, {"n": 2})
        assert verify_audit_log(log).holds
        assert [each.get("n") for each in written(log)] == [1, None, 2]


def test_a_tear_too_long_to_be_quoted_is_cut_and_the_chain_holds(log: Path) -> None:
    write(log, *numbered(1))
    with log.open("ab") as file:
        file.write(b'{"x":"' + b"y" * 300_000)
    write(log, {"n": 2})
    found = verify_audit_log(log)
    assert (found.holds, found.records, found.recovered) == (True, 3, 1)
    assert written(log)[1]["torn_bytes"] == 300_006
    assert len(written(log)[1]["fragment"]) == 65_536


@pytest.mark.parametrize("rotate", [0, 20_000])
@pytest.mark.parametrize("seed", range(3))
def test_processes_killed_while_writing_leave_one_chain(log: Path, seed: int, rotate: int) -> None:
    dice = random.Random(seed)
    acknowledged = 0
    for name in ("first", "second", "third"):
        writer = start_writer(log, name, rotate=rotate)
        assert writer.stdout is not None
        for _ in range(stop_after := dice.randint(1, 40)):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged += stop_after + len(writer.stdout.read().splitlines())
        writer.stdout.close()
        assert writer.wait(timeout=90) == -signal.SIGKILL
        found = verify_audit_log(log)
        assert found.broken is None
        # Of each process one more may have been written whose acknowledgement was not; a tear adds a record, too.
        assert acknowledged <= found.records <= acknowledged + 6
    assert (len(found.files) > 1) == bool(rotate)


@pytest.mark.parametrize("rotate", [0, 30_000])
def test_processes_that_write_at_once_make_one_chain(log: Path, rotate: int) -> None:
    writers = [start_writer(log, name, count=50, rotate=rotate) for name in "abc"]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    found = verify_audit_log(log)
    assert (found.broken, found.records, found.head.seq) == (None, 150, 150)


FORKING = """
import os, sys
from pathlib import Path
from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode

journal = Journal(Path(sys.argv[1]), chain=Chain())
journal.open()
journal.append(encode({"from": "parent"}))
children = []
for name in "abc":
    child = os.fork()
    if child == 0:
        for number in range(3000):
            journal.append(encode({"from": name, "n": number}))
        os._exit(0)
    children.append(child)
for number in range(3000):
    journal.append(encode({"from": "parent", "n": number}))
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


def test_workers_that_were_forked_off_with_an_open_log_make_one_chain(log: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKING, str(log)], timeout=60, check=True)
    found = verify_audit_log(log)
    assert (found.broken, found.records) == (None, 12_001)


def test_the_chain_goes_on_over_rotated_files_and_restarts(log: Path) -> None:
    for number in range(9):
        write(log, {"n": number}, rotate_bytes=500, rotate_keep=2)
    found = verify_audit_log(log)
    assert found.holds
    assert [Path(file).name for file in found.files] == ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert (found.first, found.head.seq) == (found.head.seq - found.records + 1, 9)
    assert verify_audit_log(log, alone=True).holds


def test_a_crash_between_setting_aside_and_the_next_file_loses_nothing(log: Path) -> None:
    write(log, *numbered(2))
    log.rename(log.with_name("audit.jsonl.1"))
    assert verify_audit_log(log).records == 2
    write(log, {"n": 3})
    found = verify_audit_log(log)
    assert (found.broken, found.records) == (None, 3)


def test_a_crash_in_the_middle_of_renumbering_moves_nothing_twice(log: Path) -> None:
    options: dict[str, Any] = {"rotate_bytes": 10, "rotate_keep": 3}
    write(log, *numbered(4), **options)
    # As if `.1` had been moved on to `.2` and nothing else.
    log.with_name("audit.jsonl.3").unlink()
    log.with_name("audit.jsonl.2").rename(log.with_name("audit.jsonl.3"))
    log.with_name("audit.jsonl.1").rename(log.with_name("audit.jsonl.2"))
    write(log, {"n": 5}, **options)
    kept = {each.name: written(each)[0]["n"] for each in log.parent.iterdir()}
    assert kept == {"audit.jsonl": 5, "audit.jsonl.1": 4, "audit.jsonl.2": 3, "audit.jsonl.3": 2}
    assert verify_audit_log(log).holds


def test_a_running_writer_carries_the_chain_into_the_file_that_logrotate_makes_room_for(log: Path) -> None:
    ours, peer = Journal(log, chain=Chain()), Journal(log, chain=Chain())
    ours.open()
    peer.open()
    ours.append(encode({"n": 1}))
    peer.append(encode({"n": 2}))
    log.rename(log.with_name("yesterday.jsonl"))
    ours.append(encode({"n": 3}))
    peer.append(encode({"n": 4}))
    ours.close()
    peer.close()
    (log.with_name("yesterday.jsonl")).rename(log.with_name("audit.jsonl.1"))
    found = verify_audit_log(log)
    assert (found.broken, found.records) == (None, 4)


def swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def edit(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'"n":3', b'"n":9')


def renumber(lines: list[bytes]) -> None:
    """What a forger without insight does: delete a line and correct the numbers after it."""
    del lines[2]
    for index in (2, 3):
        lines[index] = lines[index].replace(b'"seq":%d' % (index + 2), b'"seq":%d' % (index + 1))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit, ("audit-changed", 3, "this record was changed after it was written")),
        (lambda lines: lines.pop(2), ("audit-gap", 3, "record 4 follows record 2")),
        (lambda lines: lines.insert(2, lines[1]), ("audit-gap", 3, "record 2 follows record 2")),
        (lambda lines: lines.insert(2, b"hello"), ("audit-changed", 3, "this is no sealed record")),
        (lambda lines: lines.insert(2, b""), ("audit-changed", 3, "this is no sealed record")),
        (swap, ("audit-gap", 3, "record 4 follows record 2")),
        (renumber, ("audit-changed", 3, "this record was changed after it was written")),
    ],
)
def test_the_first_broken_link_is_named_with_its_line(
    log: Path, change: Callable[[list[bytes]], Any], expected: tuple[str, int, str]
) -> None:
    write(log, *numbered(5))
    lines = log.read_bytes().splitlines()
    change(lines)
    log.write_bytes(b"\n".join(lines) + b"\n")
    found = verify_audit_log(log)
    assert fault(found) == expected
    assert (found.records, found.head.seq) == (2, 2)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_byte_can_be_changed_unseen(data: st.DataObject) -> None:
    chain = Chain()
    lines, head = [], audit_verify.GENESIS
    for each in numbered(3):
        line, head = chain.seal(encode(each), head)
        lines.append(line)
    whole = bytearray(b"".join(lines))
    index = data.draw(st.integers(0, len(whole) - 1))
    whole[index] = data.draw(st.integers(0, 255).filter(lambda value: value != whole[index]))
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as end:
        end.write(whole)
    found = Verification()
    with os.fdopen(read_end, "rb") as file:
        found.broken = audit_verify._verify_lines("log", audit_verify._lines(file, len(whole)), chain, found, {})
    # The last line end is the one byte that a crash may take, too.
    assert found.broken is not None or (index == len(whole) - 1 and found.records == 2)


def test_lines_taken_from_the_end_show_against_a_head_that_was_noted(log: Path) -> None:
    write(log, *numbered(5))
    head = verify_audit_log(log).head
    assert verify_audit_log(log, expect={head.seq: head.hash}).holds
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    assert verify_audit_log(log).holds
    assert fault(verify_audit_log(log, expect={head.seq: head.hash})) == (
        "audit-head",
        0,
        "the log ends with record 3, but record 5 was written: lines are missing",
    )


def test_a_log_written_anew_shows_against_a_head_that_was_noted(log: Path) -> None:
    write(log, *numbered(3))
    head = verify_audit_log(log).head
    log.unlink()
    write(log, *reversed(numbered(3)))
    assert verify_audit_log(log).holds
    assert fault(verify_audit_log(log, expect={head.seq: head.hash})) == (
        "audit-head",
        3,
        "record 3 is another one than the head that was noted",
    )


def test_a_chain_that_begins_in_the_middle_is_told(log: Path) -> None:
    write(log.with_name("audit.jsonl.1"), *numbered(2))
    write(log.with_name("other"), *numbered(2))
    log.with_name("other").rename(log)
    assert fault(verify_audit_log(log)) == ("audit-restart", 1, "a new chain begins after record 2")


def test_a_key_keeps_those_who_have_none_from_writing_a_chain(log: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "wrong").write_text("x" * 32)
    write(log, *numbered(2), key=KEY.encode())
    assert verify_audit_log(log, key_file=tmp_path / "key").records == 2
    assert fault(verify_audit_log(log))[2] == "this record was sealed with a key"
    wrong = "this record was changed after it was written, or the key is another"
    assert fault(verify_audit_log(log, key_file=tmp_path / "wrong"))[2] == wrong
    log.unlink()
    write(log, *numbered(2))
    assert fault(verify_audit_log(log, key_file=tmp_path / "key"))[2] == "this record was sealed without a key"


def test_what_is_no_chain_is_not_continued(log: Path) -> None:
    log.write_text('{"n":1}\n')
    with pytest.raises(OSError, match="this is no sealed record, so nothing can follow its last line; move the file"):
        write(log, {"n": 2})
    assert log.read_text() == '{"n":1}\n'


def test_a_log_may_be_verified_while_it_is_written_to(log: Path) -> None:
    # Bounded, because each look reads all that there is.
    writer = start_writer(log, "a", count=3_000, rotate=50_000)
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        for _ in range(20):
            found = verify_audit_log(log)
            assert (found.broken, found.torn_bytes) == (None, 0)
    finally:
        writer.kill()
        writer.communicate(timeout=90)


def audit(path: Path, **config: Any) -> dict[str, Any]:
    return {
        "name": "audit",
        "kind": "cpex.builtins.observability.audit_log.AuditLogPlugin",
        "mode": "fire_and_forget",
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "config": {"path": str(path), **config},
    }


async def test_two_plugins_of_one_process_write_one_chain(running: Any, log: Path) -> None:
    async with running(audit(log)) as one, running(audit(log)) as other:
        for manager in (one, other, one):
            call = ToolPreInvokePayload(name="search")
            await asyncio.gather(
                *(manager.invoke_hook("tool_pre_invoke", call, GlobalContext(request_id=str(n))) for n in range(5))
            )
    found = verify_audit_log(log)
    assert (found.broken, found.records) == (None, 30)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"content": [], "isError": False}, "completed"),
        ({"content": [], "isError": True}, "errored"),
        ("text", "completed"),
    ],
)
async def test_a_post_hook_tells_how_the_operation_ended(running: Any, log: Path, result: Any, outcome: str) -> None:
    async with running(audit(log, records=["decision"])) as manager:
        payload = ToolPostInvokePayload(name="search", result=result)
        await manager.invoke_hook("tool_post_invoke", payload, GlobalContext(request_id="r"))
    assert [each["outcome"] for each in written(log)] == [outcome]


async def test_a_pre_hook_tells_that_it_was_allowed_or_denied(
    running: Any, allow_list: dict[str, Any], log: Path
) -> None:
    async with running(audit(log, records=["decision"]), allow_list) as manager:
        for name in ("search", "delete"):
            await manager.invoke_hook(
                "tool_pre_invoke", ToolPreInvokePayload(name=name), GlobalContext(request_id=name)
            )
    assert sorted(each["outcome"] for each in written(log)) == ["allowed", "denied"]


async def test_only_the_chosen_parts_of_records_are_written(running: Any, log: Path) -> None:
    async with running(audit(log, fields=["outcome", "entity"])) as manager:
        await manager.invoke_hook(
            "tool_pre_invoke", ToolPreInvokePayload(name="search"), GlobalContext(request_id="r", user="ann")
        )
    always = {"seq", "v", "ts", "type", "hook", "request_id", "prev", "hash", "entity"}
    found = {each["type"]: set(each) for each in written(log)}
    assert found == {"attempt": always, "decision": always | {"outcome"}}


async def test_message_hooks_are_on_record_with_what_they_carry(running: Any, log: Path) -> None:
    from cpex.framework.cmf.message import Message, Role, ToolResult, ToolResultContentPart
    from cpex.framework.hooks.message import MessagePayload

    part = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="search", content="x", is_error=True))
    message = MessagePayload(message=Message(schema_version="2.0", role=Role.TOOL, content=[part]))
    async with running(audit(log) | {"hooks": ["cmf.tool_post_invoke"]}) as manager:
        await manager.invoke_hook("cmf.tool_post_invoke", message, GlobalContext(request_id="r"))
    found = {each["type"]: each for each in written(log)}
    assert (found["attempt"]["entity_type"], found["attempt"]["entity"]) == ("tool", "search")
    assert found["decision"]["outcome"] == "errored"
    assert verify_audit_log(log).holds


async def test_a_key_that_cannot_be_had_stops_the_start(running: Any, log: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the key of the audit log cannot be read from .*: No such file"):
        async with running(audit(log, key_file=str(tmp_path / "absent"))):
            pass
    (tmp_path / "key").write_text("short")
    with pytest.raises(RuntimeError, match="has 5 bytes, expected 16 to 4096"):
        async with running(audit(log, key_file=str(tmp_path / "key"))):
            pass
    assert not log.exists()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 1), st.integers(0, 400)),
        st.tuples(st.just("crash"), st.integers(0, 1), st.integers(1, 700)),
        st.tuples(st.just("reopen"), st.integers(0, 1), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, rotate=st.sampled_from([None, 300, 1_500]))
def test_whatever_happens_to_two_writers_the_chain_holds_and_keeps_what_was_not_torn(
    steps: list[tuple[str, int, int]], rotate: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        journals = [Journal(path, rotate_bytes=rotate, rotate_keep=1_000, chain=Chain()) for _ in range(2)]
        for each in journals:
            each.open()
        expected: list[int] = []
        for number, (step, who, amount) in enumerate(steps):
            if step == "append":
                journals[who].append(encode({"n": number, "text": "x" * amount}))
                expected.append(number)
            elif step == "reopen":
                journals[who].close()
                journals[who].open()
            else:
                # A writer dies in the middle of a line: the file ends anywhere in it, and the process is another one.
                journals[who].append(encode({"n": number, "text": "x" * 700}))
                os.truncate(path, path.stat().st_size - amount)
                journals[who].close()
                journals[who] = Journal(path, rotate_bytes=rotate, rotate_keep=1_000, chain=Chain())
                journals[who].open()
                if amount == 1:
                    expected.append(number)
        for each in journals:
            each.close()
        found = verify_audit_log(path)
        assert (found.broken, found.torn_bytes) == (None, 0)
        kept = [each["n"] for file in found.files for each in written(Path(file)) if "n" in each]
        assert kept == expected
