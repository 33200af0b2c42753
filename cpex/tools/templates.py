"""Projects from the templates that come with the package.

A template is a folder below `cpex/templates`. Names of its files and their text may hold `[[value]]`, and
`[[json:value]]` where a value is to be quoted, as YAML and TOML both read JSON's quoting. Files end in `.tmpl`, so
that no tool takes them for code of ours.
"""

from __future__ import annotations

import json
import keyword
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

__all__ = [
    "SCHEMA_FILE",
    "ProjectValues",
    "TemplateError",
    "class_name_of",
    "cpex_requirement",
    "package_of",
    "render",
    "slug_of",
    "template_types",
]

SCHEMA_FILE = "cpex.schema.json"
"""What the schema of configurations is called in projects."""
STARTER = "starter"
"""The template of `cpex init`; the others are plugins."""
_SUFFIX = ".tmpl"
_PLACE = re.compile(r"\[\[(json:)?(\w+)\]\]")
_EXECUTABLE = frozenset({"run-server.sh"})


class TemplateError(Exception):
    """A project cannot be made; the text says why."""


@dataclass(frozen=True, slots=True)
class ProjectValues:
    """What a template is filled with."""

    plugin_slug: str
    """The package: an identifier."""
    plugin_name: str
    author: str
    email: str
    description: str
    version: str = "0.1.0"

    def all(self) -> dict[str, str]:
        """These, and what follows from them."""
        return {
            **asdict(self),
            "class_name": class_name_of(self.plugin_name),
            "package_name": self.plugin_slug.replace("_", "-"),
            "cpex_version": version("cpex"),
            "cpex_requirement": cpex_requirement(),
        }


def cpex_requirement() -> str:
    """What pip is to install to have this cpex again: from where it came, else this version or newer of the index.

    Source: Python Packaging User Guide, "Recording the Direct URL Origin of installed distributions" (PEP 610).
    """
    told = distribution("cpex").read_text("direct_url.json")
    origin: dict[str, Any] = json.loads(told) if told else {}
    url, vcs = str(origin.get("url", "")), origin.get("vcs_info")
    if not url:
        return f"cpex>={version('cpex')}"
    return f"cpex @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else f"cpex @ {url}"


def slug_of(name: str) -> str:
    """A name as a package: lower case, `_` for blanks and hyphens.

    Raises:
        TemplateError: That is no name for a package.
    """
    slug = re.sub(r"[\s-]", "_", name.strip().lower())
    if not slug.isidentifier() or keyword.iskeyword(slug) or not slug.isascii():
        raise TemplateError(f"`{name}` is no name for a package; use letters, digits and `_`, and begin with a letter")
    return slug


def package_of(folder: str) -> str:
    """A folder's name as a package: as it is where Python can import that, else as `slug_of` has it.

    Raises:
        TemplateError: That is no name for a package.
    """
    importable = folder.isascii() and folder.isidentifier() and not keyword.iskeyword(folder)
    return folder if importable else slug_of(folder)


def class_name_of(name: str) -> str:
    """A plugin's name as a class: its parts, each with a capital."""
    parts = [part for part in re.split(r"[\s_-]", name) if part]
    return "".join(part[:1].upper() + part[1:] for part in parts)


def template_types() -> list[str]:
    """The kinds of plugins that there are templates for."""
    root = resources.files("cpex") / "templates"
    return sorted(each.name for each in root.iterdir() if each.is_dir() and each.name != STARTER)


def render(template: str, target: Path, values: ProjectValues) -> list[Path]:
    """Write a project, whole or not at all.

    Args:
        target: A folder that does not exist, or that has none of the project's files.

    Returns:
        What was written, relative to the target, in alphabetical order.

    Raises:
        TemplateError: A file is there already, or the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the last step is a rename, which happens whole or not at all.
        with tempfile.TemporaryDirectory(prefix=".cpex-", dir=target.parent) as scratch:
            made = Path(scratch) / "project"
            with resources.as_file(resources.files("cpex") / "templates" / template) as source:
                _render_folder(source, made, values.all())
            _write_schema(made)
            files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
            _put(made, target, files)
    except OSError as error:
        raise TemplateError(f"`{target}` cannot be written: {error.strerror or error}") from error
    return files


def _render_folder(source: Path, made: Path, values: Mapping[str, str]) -> None:
    for path in sorted(source.rglob(f"*{_SUFFIX}")):
        name = _filled(str(path.relative_to(source)).removesuffix(_SUFFIX), values)
        file = made / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_filled(path.read_text(encoding="utf-8"), values), encoding="utf-8")
        if file.name in _EXECUTABLE:
            # Not copied from the template: archives of packages lose it.
            file.chmod(0o755)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda found: json.dumps(values[found[2]]) if found[1] else values[found[2]], text)


def _write_schema(made: Path) -> None:
    from cpex.framework.loader.json_schema import config_schema

    text = json.dumps(config_schema(), ensure_ascii=False, indent=2) + "\n"
    (made / SCHEMA_FILE).write_text(text, encoding="utf-8")


def _put(made: Path, target: Path, files: list[Path]) -> None:
    if not target.exists():
        made.rename(target)
        return
    there = [str(path) for path in files if (target / path).exists()]
    if there or not target.is_dir():
        raise TemplateError(f"`{target}` is there already" + (f", with {', '.join(there[:3])}" if there else ""))
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made / path, target / path)
