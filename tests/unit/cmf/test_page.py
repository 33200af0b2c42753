"""The page about messages: its tables hold, and its message is one."""

import json
import re

from doc_blocks import ROOT, blocks

from cpex.framework.cmf.message import Message
from cpex.framework.cmf.uri import resource_pattern, verbatim_pattern
from cpex.framework.cmf.view import MessageView

BLOCKS = blocks("reference/messages.md")
PAGE = (ROOT / "docs" / "reference" / "messages.md").read_text(encoding="utf-8")


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
