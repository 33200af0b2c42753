"""The page of the PII redactor: its settings exist, and none is left out."""

from __future__ import annotations

import re

import yaml
from doc_blocks import ROOT, blocks

from cpex.builtins.privacy.pii_settings import PIIRedactionSettings

PAGE = "plugins/pii_redaction.md"


def test_the_settings_of_the_other_engine_are_accepted() -> None:
    (plugin,) = yaml.safe_load(blocks(PAGE)["presidio.yaml"])["plugins"]
    settings = PIIRedactionSettings.model_validate(plugin["config"])
    assert settings.presidio is not None
    assert settings.presidio.entities == ["PERSON", "LOCATION"]


def test_every_setting_has_its_line() -> None:
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", text[text.index("## Settings") : text.index("| `mode` | a card")], re.M)
    assert sorted(listed) == sorted(PIIRedactionSettings.model_fields)
