"""The README's program prints what the README says, with the configuration that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from doc_blocks import ROOT, blocks


def test_the_host_of_the_readme_prints_what_it_shows(tmp_path: Path) -> None:
    shown = blocks("../README.md")
    layers = re.search(
        r"^```yaml\n([^`]*?^plugins:.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert layers is not None
    (tmp_path / "plugins.yaml").write_text(layers[1])
    (tmp_path / "host.py").write_text(shown["host.py"])
    done = subprocess.run([sys.executable, "host.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (shown["host.out"], "")


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
