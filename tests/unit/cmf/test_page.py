"""The page about messages: its programs print what it shows, and its tables hold."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks

from cpex.framework.cmf.message import Message
from cpex.framework.cmf.uri import resource_pattern, verbatim_pattern
from cpex.framework.cmf.view import MessageView

BLOCKS = blocks("reference/messages.md")
PAGE = (ROOT / "docs" / "reference" / "messages.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("program", ["guard", "redact", "mask", "unknown", "convert"])
def test_a_program_prints_what_the_page_shows(program: str, tmp_path: Path) -> None:
    for name, code in BLOCKS.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, f"{program}.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == BLOCKS[f"{program}.out"]


def test_the_message_of_the_page_is_one_and_is_written_as_it_stands() -> None:
    message = Message.model_validate_json(BLOCKS["message.json"])
    assert json.loads(BLOCKS["message.json"]) == json.loads(message.model_dump_json())


def test_the_patterns_of_the_page_cover_what_it_says() -> None:
    rows = re.findall(r"^\| `((?:tool|file)://[^`]+)` \| `?([^|`]+)`? \| `?([^|`]*)`?", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for pattern, covered, not_covered in rows:
        compiled = (verbatim_pattern if pattern.startswith("tool") else resource_pattern)(pattern)
        assert "://" not in covered or compiled.matches(covered)
        assert not not_covered.strip() or not compiled.matches(not_covered)


def test_every_accessor_is_on_the_page() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", prose))))
    assert {name for name in dir(MessageView) if not name.startswith("_")} - named == set()
