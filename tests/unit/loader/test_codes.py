from __future__ import annotations

import re

from doc_blocks import ROOT, noted

from cpex.framework.errors import ConfigError
from cpex.framework.loader.config import ConfigLoader


def test_every_code_of_a_fault_has_a_line_in_the_reference() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "cpex" / "framework" / "loader").glob("*.py"))
    page = (ROOT / "docs" / "reference" / "config-errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(config-[a-z0-9-]+)` \| (error|warning|lapse) \| \S", page, re.MULTILINE)
    assert listed == sorted(listed)
    assert {code for code, _ in listed} == set(re.findall(r'"(config-[a-z0-9-]+)"', source))


def test_the_message_of_the_page_is_the_one_that_is_printed() -> None:
    plugin = "plugins:\n- name: pii-filter\n  kind: a.B\n  mode:   sequental\n"
    faults = ConfigLoader.check_text(plugin, file="plugins/config.yaml").faults
    assert noted("docs/reference/config-errors.md") == [f"{ConfigError(faults)}\n"]
