"""Code blocks of a page, by the name that their fence gives them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(?P<language>\w+) file=(?P<name>\S+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> dict[str, str]:
    """`{file name: code}` for every named block of a page below `docs/`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return {match["name"]: match["code"] for match in _BLOCK.finditer(text)}
