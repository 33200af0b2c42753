"""The journal: whole lines, whatever happens to the processes that write them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cpex.builtins.observability import _tail
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode

WRITER = """
import itertools, sys
from pathlib import Path
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode

path, name, count, rotate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) or None
journal = Journal(path, rotate_bytes=rotate, rotate_keep=1000)
journal.open()
for number in range(count) if count else itertools.count():
    journal.append(encode({"from": name, "n": number, "text": "x" * (number * 997 % 30_000)}))
    print(number, flush=True)
"""


def start_writer(path: Path, name: str, count: int = 0, rotate: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count), str(rotate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def records(path: Path) -> list[dict[str, object]]:
    text = path.read_bytes()
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def append_all(path: Path, *objects: dict[str, object]) -> None:
    journal = Journal(path)
    journal.open()
    for each in objects:
        journal.append(encode(each))
    journal.close()


def test_a_line_is_there_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "logs" / "audit.jsonl")
    journal.open()
    assert journal.try_append(encode({"n": 1}))
    assert records(journal.path) == [{"n": 1}]
    journal.close()


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    append_all(tmp_path / "audit.jsonl", {"n": 1})
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o077 == 0


def test_opening_and_closing_twice_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "audit.jsonl")
    journal.open()
    journal.open()
    journal.close()
    journal.close()
    with pytest.raises(OSError, match="the file is closed"):
        journal.append(b"{}\n")
    journal.open()
    journal.append(encode({"n": 1}))
    journal.close()
    assert records(journal.path) == [{"n": 1}]


def test_a_crash_at_any_byte_leaves_a_file_whose_every_line_parses(tmp_path: Path) -> None:
    last = encode({"text": 'quote " backslash \\ umlaut ü', "n": 2})
    for cut in range(1, len(last)):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(encode({"n": 1}) + last[:cut])
        append_all(path, {"n": 3})
        first, middle, end = records(path)
        assert (first, end) == ({"n": 1}, {"n": 3})
        if cut == len(last) - 1:
            assert middle == json.loads(last)
        else:
            assert middle["type"] == "recovered"
            assert (middle["torn_bytes"], middle["fragment"]) == (cut, last[:cut].decode())


def test_a_crash_while_mending_is_mended_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(encode({"n": 1}) + b'{"n": "half')
    append_all(path)
    mended = path.read_bytes()
    for cut in range(len(encode({"n": 1})) + len(b'{"n": "half'), len(mended) - 1, 7):
        path.write_bytes(mended[:cut])
        append_all(path, {"n": 2})
        found = records(path)
        assert (found[0], found[-1]) == ({"n": 1}, {"n": 2})
        assert len(found) == 3


def test_a_tail_of_zero_bytes_after_a_power_failure_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(encode({"n": 1}) + b"\0\0\xff")
    append_all(path, {"n": 2})
    assert [each.get("fragment") for each in records(path)] == [None, "\0\0\\xff", None]


def test_a_peer_that_died_in_mid_line_is_mended_by_a_process_that_is_already_running(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "audit.jsonl")
    journal.open()
    journal.append(encode({"n": 1}))
    with journal.path.open("ab") as peer:
        peer.write(b'{"n": 2, "tex')
    journal.append(encode({"n": 3}))
    journal.close()
    assert [each.get("n") for each in records(journal.path)] == [1, None, 3]


def test_a_file_that_is_not_made_of_lines_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A smaller bound, so that the test need not write megabytes.
    monkeypatch.setattr(_tail, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(_tail, "_FIRST_LOOK_BYTES", 50)
    path = tmp_path / "picture.png"
    path.write_bytes(b"x" * 500)
    with pytest.raises(OSError, match="not a file of lines"):
        Journal(path).open()
    assert path.read_bytes() == b"x" * 500


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        Journal(tmp_path / "pipe").open()


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_nothing_that_it_had_appended(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "audit.jsonl"
    for name in ("first", "second", "third"):
        writer = start_writer(path, name)
        assert writer.stdout is not None
        stop_after = random.Random(f"{seed}{name}").randint(1, 60)
        for _ in range(stop_after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = stop_after + len(writer.stdout.read().splitlines())
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        append_all(path, {"after": name})
        numbers = [each["n"] for each in records(path) if each.get("from") == name]
        # One more may have been written whose acknowledgement was not.
        assert numbers in (list(range(acknowledged)), list(range(acknowledged + 1)))


@pytest.mark.parametrize("rotate", [0, 200_000])
def test_processes_that_append_at_once_lose_and_mix_no_lines(tmp_path: Path, rotate: int) -> None:
    path = tmp_path / "audit.jsonl"
    names = ("a", "b", "c")
    writers = [start_writer(path, name, count=60, rotate=rotate) for name in names]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    found = [each for file in tmp_path.glob("audit.jsonl*") for each in records(file)]
    assert sorted((each["from"], each["n"]) for each in found) == [(name, n) for name in names for n in range(60)]
    assert len(list(tmp_path.iterdir())) == 1 if not rotate else len(list(tmp_path.iterdir())) > 5


def test_a_line_that_does_not_fit_is_taken_back_and_reported(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from cpex.builtins.observability._journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = Journal(Path(sys.argv[1]))
journal.open()
journal.append(b"{}" + b" " * 900 + b"\\n")
try:
    journal.append(b"{}" + b" " * 900 + b"\\n")
except OSError as error:
    print(error.strerror)
journal.append(b'{"n":2}\\n')
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "audit.jsonl")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "only 97 of 903 bytes fitted\n"
    assert records(tmp_path / "audit.jsonl") == [{}, {"n": 2}]


def test_the_journal_follows_a_file_that_was_moved_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "audit.jsonl")
    journal.open()
    journal.append(encode({"n": 1}))
    (tmp_path / "audit.jsonl").rename(tmp_path / "yesterday.jsonl")
    journal.append(encode({"n": 2}))
    journal.close()
    assert records(tmp_path / "yesterday.jsonl") == [{"n": 1}]
    assert records(tmp_path / "audit.jsonl") == [{"n": 2}]


def test_a_full_file_is_set_aside_and_the_oldest_one_deleted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "audit.jsonl", rotate_bytes=20, rotate_keep=2)
    journal.open()
    for number in range(8):
        journal.append(encode({"n": number}))
    journal.close()
    kept = {file.name: [each["n"] for each in records(file)] for file in tmp_path.iterdir()}
    assert kept == {"audit.jsonl": [6, 7], "audit.jsonl.1": [4, 5], "audit.jsonl.2": [2, 3]}


def test_a_line_longer_than_a_whole_file_is_written_all_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "audit.jsonl", rotate_bytes=20)
    journal.open()
    journal.append(encode({"text": "x" * 100}))
    journal.close()
    assert len(records(journal.path)) == 1


def test_nobody_waits_for_a_file_that_another_process_has_locked(tmp_path: Path) -> None:
    holder, other = Journal(tmp_path / "audit.jsonl"), Journal(tmp_path / "audit.jsonl")
    holder.open()
    other.open()
    # The lock is taken through the holder's own door: a peer in the middle of an append.
    assert holder._lock(blocking=False)
    assert not other.try_append(encode({"n": 1}))
    waiting = threading.Thread(target=other.append, args=[encode({"n": 2})])
    waiting.start()
    assert not other.try_append(encode({"n": 3}))
    holder._unlock()
    waiting.join(timeout=90)
    holder.close()
    other.close()
    assert records(other.path) == [{"n": 2}]


def test_synchronising_a_closed_journal_does_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "audit.jsonl")
    journal.sync()
    journal.open()
    journal.append(b"{}\n")
    journal.sync()
    journal.close()
    journal.sync()


def test_those_who_wait_for_the_disk_together_ask_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "audit.jsonl")
    journal.open()
    asked: list[int] = []
    working, go_on = threading.Event(), threading.Event()

    def slow_disk(fd: int) -> None:
        asked.append(fd)
        working.set()
        assert go_on.wait(60)

    # A disk that takes as long as the test needs, which a real one cannot be made to.
    monkeypatch.setattr(os, "fsync", slow_disk)
    journal.append(b"{}\n")
    first = threading.Thread(target=journal.sync)
    first.start()
    assert working.wait(60)
    journal.append(b"{}\n")
    others = [threading.Thread(target=journal.sync) for _ in range(5)]
    for each in others:
        each.start()
    go_on.set()
    for each in (first, *others):
        each.join(60)
    journal.close()
    assert len(asked) == 2
