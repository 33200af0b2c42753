"""Makes release notes of the fragments in `changelog.d/`; `make changelog VERSION=…` moves them to `CHANGELOG.md`.

A fragment is `NUMBER.KIND.md`: paragraphs to the user, one for each change, parted by blank lines.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cpex.framework import clock

KINDS = ("breaking", "security", "added", "changed", "deprecated", "fixed")
MARK = "<!-- releases -->\n"
"""In the changelog, where the newest release goes."""


def entries(folder: Path) -> dict[str, list[str]]:
    """The paragraphs of all fragments, by kind, in the order of `KINDS`.

    Raises:
        ValueError: A file is no fragment; named with all others that are none.
    """
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    strangers = []
    for path in sorted(folder.iterdir()):
        name = re.fullmatch(r"\w+\.(\w+)\.md", path.name)
        if name is None or name[1] not in KINDS:
            strangers.append(path.name)
            continue
        text = path.read_text(encoding="utf-8")
        found[name[1]] += [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
    if strangers:
        raise ValueError(f"no fragments: {', '.join(strangers)}; name them NUMBER.KIND.md, kinds: {', '.join(KINDS)}")
    return {kind: paragraphs for kind, paragraphs in found.items() if paragraphs}


def notes(title: str, folder: Path) -> str:
    """The notes of one release, as Markdown."""
    parts = [f"## {title}"]
    for kind, paragraphs in entries(folder).items():
        parts.append(f"### {kind.capitalize()}")
        parts.append("\n".join(f"- {paragraph.replace(chr(10), chr(10) + '  ')}" for paragraph in paragraphs))
    return "\n\n".join(parts) + "\n"


def release(version: str, root: Path) -> None:
    """Put the notes of a release on top of the changelog, and remove their fragments."""
    changelog, folder = root / "CHANGELOG.md", root / "changelog.d"
    title = f"{version} ({clock.now().date().isoformat()})"
    before, mark, after = changelog.read_text(encoding="utf-8").partition(MARK)
    changelog.write_text(f"{before}{mark}\n{notes(title, folder)}{after}", encoding="utf-8")
    for path in folder.iterdir():
        path.unlink()


if __name__ == "__main__":
    release(sys.argv[1], Path(__file__).resolve().parents[1])
