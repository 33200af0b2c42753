"""Changes of a configuration file that leave everything else of it as its author wrote it.

The text is edited, not written anew: comments, templates, order and spelling stay. Each edit is checked by reading the
result, and a file that is written in a way that cannot be edited so is refused, not rewritten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cpex.framework.loader.config import replace_file
from cpex.framework.loader.templates import TemplatedText

__all__ = ["ConfigEdit", "ConfigEditError"]

BACKUP = ".bak"
_NEW = "plugins: []\n"


class ConfigEditError(Exception):
    """A configuration cannot be edited; the text says why. The file is unchanged."""


class ConfigEdit:
    """One configuration, being edited. Nothing is written before `save`."""

    def __init__(self, path: Path) -> None:
        """Read it; one that is not there yet begins empty.

        Raises:
            ConfigEditError: It cannot be read, or is no mapping.
        """
        self.path = path
        try:
            self._before = path.read_text(encoding="utf-8") if path.exists() else None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigEditError(f"`{path}` cannot be read: {error}") from error
        self.text = self._before if self._before is not None else _NEW
        self._read()

    @property
    def plugins(self) -> list[dict[str, Any]]:
        """The entries, as they are written; templates are left as they are."""
        listed = self._document().get("plugins")
        return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append a plugin.

        Raises:
            ConfigEditError: The list of plugins is written in one line, or not as a list.
        """
        wanted = [*self.plugins, dict(entry)]
        node = self._node("plugins")
        if node is None:
            self.text = self.text.rstrip("\n") + "\nplugins:\n" if self.text.strip() else "plugins:\n"
            self._insert(self.text.count("\n"), entry, "  ")
        elif isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
            indent = " " * (node.start_mark.column)
            self._insert(self._end_of(node), entry, indent)
        elif self._is_empty(node):
            line = self._clear(node)
            self._insert(line + 1, entry, "  ")
        else:
            raise ConfigEditError(f"`plugins` of `{self.path}` is written in one line; write one entry to a line")
        self._check(wanted)

    def remove(self, names: Sequence[str]) -> None:
        """Remove the plugins of these names.

        Raises:
            ConfigEditError: The list of plugins is written in one line.
        """
        doomed = [index for index, each in enumerate(self.plugins) if each.get("name") in names]
        if not doomed:
            return
        wanted = [each for each in self.plugins if each.get("name") not in names]
        node = self._node("plugins")
        if not isinstance(node, yaml.SequenceNode) or node.flow_style:
            raise ConfigEditError(f"`plugins` of `{self.path}` is written in one line; write one entry to a line")
        starts = [each.start_mark.line for each in node.value] + [self._end_of(node)]
        lines = self.text.splitlines(keepends=True)
        for index in reversed(doomed):
            del lines[starts[index] : starts[index + 1]]
        if not wanted:
            key = self._key_line("plugins")
            lines[key] = re.sub(r"plugins:", "plugins: []", lines[key], count=1)
        self.text = "".join(lines)
        self._check(wanted)

    def set_version(self, name: str, version: str) -> None:
        """Write the version of a plugin that has one."""
        node = self._node("plugins")
        for each in node.value if isinstance(node, yaml.SequenceNode) else []:
            values = {key.value: value for key, value in each.value} if isinstance(each, yaml.MappingNode) else {}
            if name == getattr(values.get("name"), "value", None) and "version" in values:
                self._replace(values["version"], yaml.safe_dump(version).removesuffix("...\n").strip())

    def need_folder(self, folder: str) -> None:
        """Name a folder with plugins where the configuration names none."""
        if self._document().get("plugin_dirs"):
            return
        written = yaml.safe_dump([folder], default_flow_style=True).strip()
        node = self._node("plugin_dirs")
        if node is not None:
            self._replace(node, written)
            return
        lines = self.text.splitlines(keepends=True)
        head = next((number for number, line in enumerate(lines) if not line.lstrip().startswith("#")), len(lines))
        self.text = "".join([*lines[:head], f"plugin_dirs: {written}\n", *lines[head:]])

    def save(self) -> None:
        """Write the file, in one step, with the former one beside it as `.bak`; its folder is made if need be.

        Raises:
            ConfigEditError: It cannot be written.
        """
        if self.text == self._before:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            target = self.path.resolve()
            if self._before is not None:
                replace_file(target.with_name(target.name + BACKUP), self._before)
            replace_file(target, self.text)
        except OSError as error:
            raise ConfigEditError(f"`{self.path}` cannot be written: {error.strerror}") from error

    def undo(self) -> None:
        """Bring back what was there before `save`."""
        if self._before is None:
            self.path.unlink(missing_ok=True)
        elif self.path.read_text(encoding="utf-8") != self._before:
            replace_file(self.path.resolve(), self._before)

    # Reading.

    def _read(self) -> None:
        # A template is no YAML; a placeholder of the same length is, and every position stays.
        plain = TemplatedText(self.text, os.environ).text
        try:
            root = yaml.compose(plain, Loader=yaml.SafeLoader)
            document = yaml.safe_load(plain)
        except yaml.YAMLError as error:
            raise ConfigEditError(f"`{self.path}` is no YAML: {error}; see `cpex check {self.path}`") from error
        if root is not None and not isinstance(root, yaml.MappingNode):
            raise ConfigEditError(f"`{self.path}` is no mapping; see `cpex check {self.path}`")
        self._root = root
        self._parsed: dict[str, Any] = document if isinstance(document, dict) else {}

    def _document(self) -> dict[str, Any]:
        self._read()
        return self._parsed

    def _node(self, key: str) -> yaml.Node | None:
        self._read()
        return next((value for name, value in self._root.value if name.value == key), None) if self._root else None

    def _key_line(self, key: str) -> int:
        self._read()
        assert self._root is not None
        line: int = next(name.start_mark.line for name, _ in self._root.value if name.value == key)
        return line

    @staticmethod
    def _is_empty(node: yaml.Node) -> bool:
        if isinstance(node, yaml.SequenceNode):
            return not node.value
        return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")

    def _end_of(self, node: yaml.Node) -> int:
        """The line after the last one of a block, blank lines and comments after it left out."""
        lines = self.text.splitlines()
        end: int = node.end_mark.line if node.end_mark.column == 0 or node.end_mark.line < len(lines) else len(lines)
        end = min(end, len(lines))
        last = self._last_line(node)
        while end - 1 > last and re.match(r"\s*(#.*)?$", lines[end - 1]):
            end -= 1
        return max(end, last + 1)

    def _last_line(self, node: yaml.Node) -> int:
        """The line of the last scalar in a block; block scalars may go on for more."""
        if isinstance(node, yaml.CollectionNode) and node.value:
            child = node.value[-1]
            return self._last_line(child[1] if isinstance(child, tuple) else child)
        line: int = node.end_mark.line
        # A block scalar ends where the next line begins.
        return line - 1 if node.end_mark.column == 0 and line > node.start_mark.line else line

    # Editing.

    def _clear(self, node: yaml.Node) -> int:
        """Take an empty value away; return the line of its key."""
        if node.start_mark.index != node.end_mark.index:
            start, end = node.start_mark.index, node.end_mark.index
            self.text = self.text[:start].rstrip(" ") + self.text[end:]
        if not self.text.endswith("\n"):
            self.text += "\n"
        return self._key_line("plugins")

    def _insert(self, line: int, entry: Mapping[str, Any], indent: str) -> None:
        written = yaml.safe_dump([dict(entry)], sort_keys=False, allow_unicode=True, width=100)
        lines = self.text.splitlines(keepends=True)
        if line and line <= len(lines) and not lines[line - 1].endswith("\n"):
            lines[line - 1] += "\n"
        block = [f"{indent}{each}" if each.strip() else each for each in written.splitlines(keepends=True)]
        self.text = "".join([*lines[:line], *block, *lines[line:]])

    def _replace(self, node: yaml.Node, written: str) -> None:
        start, end = node.start_mark.index, node.end_mark.index
        space = " " if start == end and not self.text[:start].endswith(" ") else ""
        self.text = self.text[:start] + space + written + self.text[end:]

    def _check(self, wanted: list[dict[str, Any]]) -> None:
        """INVARIANT: the plugins of the edited text are the wanted ones; else the edit went wrong and is not saved."""
        if [each.get("name") for each in self.plugins] != [each.get("name") for each in wanted]:
            raise ConfigEditError(f"`{self.path}` is written in a way that cannot be edited; change it by hand")
