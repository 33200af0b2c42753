"""The page about plugins in other processes: its example runs, and what it shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from doc_blocks import ROOT, blocks

from cpex.framework import MCPClientConfig

PAGE = ROOT / "docs" / "reference" / "external.md"


def test_the_smallest_whole_prints_what_the_page_says(tmp_path: Path) -> None:
    for name, code in blocks("reference/external.md").items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    (transcript,) = re.findall(r"^```console\n\$ python host.py\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    # The page's `cpex` is the one beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PLUGINS_")}
    done = subprocess.run(
        [sys.executable, "host.py"],
        cwd=tmp_path,
        env=inherited | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, transcript), done.stderr


def test_the_sections_of_the_page_are_valid() -> None:
    shown = re.findall(r"^```yaml\n(mcp:.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    for each in shown:
        MCPClientConfig.model_validate(yaml.safe_load(each)["mcp"])
