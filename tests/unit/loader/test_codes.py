from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_code_of_a_fault_has_a_line_in_the_reference() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "cpex" / "framework" / "loader").glob("*.py"))
    page = (ROOT / "docs" / "reference" / "config-errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(config-[a-z0-9-]+)` \| (error|warning|lapse) \| \S", page, re.MULTILINE)
    assert listed == sorted(listed)
    assert {code for code, _ in listed} == set(re.findall(r'"(config-[a-z0-9-]+)"', source))
