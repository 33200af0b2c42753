"""The program of the page about isolated plugins prints what the page shows; its rules are those of the code."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

from conformance.manifest import anchors
from doc_blocks import ROOT, blocks
from handmade_wheels import make_wheel, wheel_of_this_package
from isolated_environments import PACKAGES

from cpex.framework.isolated import client, environment, link, process

PAGE = ROOT / "docs" / "isolated.md"
TEXT = PAGE.read_text(encoding="utf-8")


def wheel_of_installed(folder: Path, name: str) -> None:
    """A wheel of a distribution as it is installed here."""
    found = importlib.metadata.distribution(name)
    files = {
        str(file): Path(str(file.locate())).read_bytes()
        for file in found.files or []
        if not file.parts[0].endswith(".dist-info") and file.parts[0] != ".." and "__pycache__" not in file.parts
    }
    make_wheel(folder, name, found.version, files)


def test_the_program_prints_what_the_page_shows(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel_of_installed(wheels, "python-stdnum")
    borrowed = f"import site; site.addsitedir({str(PACKAGES)!r})\n"
    wheel_of_this_package(wheels, "0.1.999", {"borrowed.pth": borrowed})
    shown = blocks("isolated.md")
    for name, content in shown.items():
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text(content, encoding="utf-8")
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_COMPILE": "1"}
    # The first run builds, the second one finds it built: pip would fail.
    for more in (variables, {"PIP_REQUIRE_VIRTUALENV": "no such truth value"}):
        done = subprocess.run(
            [sys.executable, "host.py"],
            cwd=tmp_path / "work",
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.stdout == shown["host.out"], done.stderr


def test_every_link_and_every_citation_leads_somewhere() -> None:
    known = anchors(PAGE)
    cited = {
        heading
        for module in (ROOT / "cpex" / "framework" / "isolated").glob("*.py")
        for heading in re.findall(r'docs/isolated\.md, "([^"]+)"', module.read_text(encoding="utf-8"))
    }
    assert cited
    assert {heading.lower().replace(" ", "-") for heading in cited} <= known
    assert re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT) == []


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    assert (client.CALL_TIMEOUT_S, environment.INSTALL_TIMEOUT_S, client.START_TIMEOUT_S) == (30, 600, 900)
    assert "30 by default" in TEXT
    assert "600 by default" in TEXT
    assert "`initialize_timeout_s` is 900" in TEXT
    assert (link.GRACE_S, link.MAX_RESPAWNS, link.RESPAWN_PAUSE_S, process.LAST_LINES) == (2, 3, 0.1, 5)


def test_messages_of_the_troubleshooting_are_messages_of_the_code() -> None:
    code = " ".join(
        module.read_text(encoding="utf-8") for module in (ROOT / "cpex" / "framework" / "isolated").glob("*.py")
    )
    # Texts that go over two lines in the code.
    code = re.sub(r'"\s+f?"', "", code).replace("{MAX_RESPAWNS + 1}", "4")
    for heading in re.findall(r"^### (.*)$", TEXT, re.MULTILINE):
        assert heading in code
