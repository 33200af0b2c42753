"""What the page about the proxy shows works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from doc_blocks import ROOT, blocks

from cpex.proxy import ChildUpstream, UrlUpstream, read_servers


def test_the_example_prints_what_the_page_says(tmp_path: Path) -> None:
    shown = blocks("proxy.md")
    for name in ("client.json", "plugins.yaml", "server.py", "client.py"):
        (tmp_path / name).write_text(shown[name], encoding="utf-8")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        [sys.executable, "client.py"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == (shown["output"], 0), done.stderr


def test_the_file_of_servers_that_is_shown_can_be_read(tmp_path: Path) -> None:
    shown = blocks("proxy.md")["servers.json"]
    (tmp_path / "servers.json").write_text(shown, encoding="utf-8")
    notes, search = read_servers(tmp_path / "servers.json")
    assert isinstance(notes, ChildUpstream)
    assert isinstance(search, UrlUpstream)
    assert notes.command.words == ("python", "server.py")
    assert json.loads(shown)["mcpServers"]["search"]["url"] == search.url


def test_the_tests_that_the_page_names_are_there() -> None:
    text = (ROOT / "docs" / "proxy.md").read_text(encoding="utf-8")
    named = [line for line in text.splitlines() if re.search(r"`test_\w+\.py` \|$", line)]
    assert len(named) > 10
    for line in named:
        *tests, file = re.findall(r"`(test_\w+(?:\.py)?)`", line)
        written = (ROOT / "tests" / "integration" / "proxy" / file).read_text(encoding="utf-8")
        assert [test for test in tests if f"def {test}(" not in written] == []
