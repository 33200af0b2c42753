"""What building the site adds to MkDocs: adopted pages, titles of fences, patterns in the navigation."""

from __future__ import annotations

import posixpath
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# MkDocs loads this file by its path.
sys.path.append(str(Path(__file__).parent))
from changelog import MARK, notes

ADOPTED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "VERSIONING.md": "versioning.md",
}
"""Files of the repository's root that are pages of the site as well, by their names there."""
_NAMED = re.compile(r"^(?P<fence>[ \t]*```\w+) file=(?P<name>\S+)$", re.MULTILINE)
_NOTE = re.compile(r"^[ \t]*<!-- (?:blocks checked by|checked by|not run:) .*-->\n", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?P<target>(?!\w+:)[^)#\s]+)(?=[)#])")


def on_config(config: Any) -> Any:
    """Put the pages that a pattern of the navigation means in its place: those that are named nowhere else."""
    folder = Path(config.docs_dir)
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    named = set(_leaves(config.nav))
    config.nav = _expanded(config.nav, [page for page in pages if page not in named])
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the adopted pages."""
    root = Path(config.config_file_path).parent
    for source, page in ADOPTED.items():
        if (root / source).is_file():
            text = (root / source).read_text(encoding="utf-8")
            if source == "CHANGELOG.md":
                text = text.replace(MARK, "\n" + notes("Unreleased", root / "changelog.d"))
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name each `file=` block by its file, leave out notes to tests, lead links to where adopted pages stand."""
    shown = _NOTE.sub("", markdown)
    titled = _NAMED.sub(lambda found: f'{found["fence"]} title="{_title(found["name"])}"', shown)
    return _LINK.sub(lambda found: _moved(found["target"], page.file.src_uri), titled)


def _title(name: str) -> str:
    return f"what {name.removesuffix('.out')}.py prints" if name.endswith(".out") else name


def _moved(target: str, page: str) -> str:
    """A link of a page, as it is from where the site has the page."""
    here = "" if page in ADOPTED.values() else posixpath.join("docs", posixpath.dirname(page))
    path = posixpath.normpath(posixpath.join(here, target))
    if path in ADOPTED:
        return posixpath.relpath(ADOPTED[path], posixpath.dirname(page) or ".")
    return target if here else path.removeprefix("docs/")


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for each in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(each)]


def _expanded(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _expanded(part, pages) for title, part in nav.items()}
    if not isinstance(nav, list):
        return nav
    out: list[Any] = []
    for each in nav:
        if isinstance(each, str) and "*" in each:
            depth = each.count("/")
            out += [page for page in pages if page.count("/") == depth and fnmatch(page, each)]
        else:
            out.append(_expanded(each, pages))
    return out
