"""The site builds without a complaint or a network, shows every page, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT

NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, where nothing listens
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"'> ]+")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; whoever asks for the network while it builds meets a proxy that is not there."""
    folder = tmp_path_factory.mktemp("site")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        # The theme advertises its successor.
        env={**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_page_is_in_the_site_and_can_be_reached_from_its_front(site: Path) -> None:
    front = (site / "glossary.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="([^"#]+\.html)"', front)) | {"glossary.html"}
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(page for page in pages if not (site / page).is_file() or page not in linked) == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    found = {page.name: LOADED.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert {name: links for name, links in found.items() if links} == {}


def test_no_fence_is_left_unrendered(site: Path) -> None:
    assert [page.name for page in site.rglob("*.html") if "```" in page.read_text(encoding="utf-8")] == []


def test_blocks_are_titled_with_their_files(site: Path) -> None:
    page = (site / "isolated.html").read_text(encoding="utf-8")
    titles = re.findall(r'<span class="filename">([^<]+)</span>', page)
    assert titles[:2] == ["plugins/banking/requirements.txt", "plugins/banking/__init__.py"]
    assert "what host.py prints" in titles


def test_pages_of_the_root_are_in_the_site_and_their_links_lead_to_it(site: Path) -> None:
    assert 'href="threat-model.html"' in (site / "security.html").read_text(encoding="utf-8")
    assert "<h3" in (site / "changelog.html").read_text(encoding="utf-8")
