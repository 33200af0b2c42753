"""The page of the PII redactor: its second example runs, its settings exist, and none is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from doc_blocks import ROOT, blocks

from cpex.builtins.privacy.pii_settings import PIIRedactionSettings

PAGE = "plugins/pii_redaction.md"


def test_the_example_of_tokens_prints_what_the_page_says(tmp_path: Path) -> None:
    parts = blocks(PAGE)
    (tmp_path / "tokens.yaml").write_text(parts["tokens.yaml"], encoding="utf-8")
    (tmp_path / "tokens.py").write_text(parts["tokens.py"], encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "tokens.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, parts["tokens.out"]), run.stderr


def test_the_settings_of_the_other_engine_are_accepted() -> None:
    (plugin,) = yaml.safe_load(blocks(PAGE)["presidio.yaml"])["plugins"]
    settings = PIIRedactionSettings.model_validate(plugin["config"])
    assert settings.presidio is not None
    assert settings.presidio.entities == ["PERSON", "LOCATION"]


def test_every_setting_has_its_line() -> None:
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", text[text.index("## Settings") : text.index("| `mode` | a card")], re.M)
    assert sorted(listed) == sorted(PIIRedactionSettings.model_fields)
