"""`cpex audit verify`, as a process: what it prints and how it ends."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cpex.builtins.observability._chain import Chain
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    journal = Journal(path, chain=Chain(), rotate_bytes=600)
    journal.open()
    for number in range(1, 6):
        journal.append(encode({"n": number}))
    journal.close()
    return path


def verify(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "cpex.tools.cli", "audit", "verify", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )
    return done.returncode, done.stdout, done.stderr


def head_of(log: Path) -> str:
    last = json.loads(log.read_text().splitlines()[-1])
    return f"{last['seq']}:{last['hash']}"


def test_a_log_that_holds_ends_in_0_and_tells_its_head(log: Path) -> None:
    told = f"ok: 5 records in 2 files hold together\nhead: {head_of(log)}\n"
    assert verify(log.parent, log.name) == (0, told, "")
    assert verify(log.parent, log.name, "--expect", head_of(log)) == (0, told, "")


def test_a_log_in_sqlite_is_checked_like_any_other(tmp_path: Path) -> None:
    journal = TableJournal(tmp_path / "audit.db", chain=Chain())
    journal.open()
    journal.append(encode({"n": 1}), encode({"n": 2}))
    journal.close()
    code, out, err = verify(tmp_path, "audit.db")
    assert (code, out.splitlines()[0], err) == (0, "ok: 2 records in 1 file hold together", "")
    with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as connection:
        connection.execute("""UPDATE records SET line = replace(line, '"n":2', '"n":7')""")
    code, out, err = verify(tmp_path, "audit.db")
    assert (code, err) == (6, "")
    assert out.startswith("broken: audit.db:2: this record was changed after it was written [audit-changed]\n")


def test_a_broken_link_ends_in_6_and_is_named_by_file_and_line(log: Path) -> None:
    older = log.with_name("audit.jsonl.1")
    older.write_text(older.read_text().replace('"n":2', '"n":7'))
    code, out, err = verify(log.parent, log.name)
    assert (code, err) == (6, "")
    assert out.splitlines()[:2] == [
        "broken: audit.jsonl.1:2: this record was changed after it was written [audit-changed]",
        "  1 record before it hold together",
    ]
    code, out, _ = verify(log.parent, log.name, "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["records"]) == (6, False, 1)
    assert found["broken"] == {
        "code": "audit-changed",
        "file": "audit.jsonl.1",
        "line": 2,
        "message": "this record was changed after it was written",
    }


def test_a_torn_line_is_a_note_and_no_fault(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b'{"seq":6,')
    code, out, _ = verify(log.parent, log.name)
    assert code == 0
    assert out.endswith("note: a crash tore the last line (9 bytes); the next writer mends it\n")


def test_files_that_are_gone_are_a_note(log: Path) -> None:
    log.with_name("audit.jsonl.1").unlink()
    code, out, _ = verify(log.parent, log.name)
    assert code == 0
    assert "note: the files begin with record 5; what came before cannot be checked\n" in out


def test_a_file_that_cannot_be_read_ends_in_1(tmp_path: Path) -> None:
    assert verify(tmp_path, "absent") == (
        1,
        "",
        "error: audit log `absent` cannot be read: No such file or directory [audit-unreadable]\n",
    )


def test_a_key_that_cannot_be_used_ends_in_1(log: Path) -> None:
    assert verify(log.parent, log.name, "--key-file", "absent") == (
        1,
        "",
        "error: key `absent` cannot be read: No such file or directory [audit-unreadable]\n",
    )
    log.with_name("key").write_text("short")
    code, _, err = verify(log.parent, log.name, "--key-file", "key")
    assert (code, err.partition(";")[0]) == (1, "error: the key in `key` has 5 bytes, expected 16 to 4096")


def test_what_is_no_head_is_a_usage_error(log: Path) -> None:
    code, out, err = verify(log.parent, log.name, "--expect", "5")
    assert (code, out) == (2, "")
    assert "`5` is no head" in err
