"""YAML text -> plain values, with the place of every key and value.

The meaning of the text is PyYAML's safe YAML 1.1. What is added: duplicate keys are found, aliases cannot multiply,
nesting is bounded, and every problem is reported with its place instead of raised. PyYAML delivers the events; the
values are put together here, because its composer forgets places, drops duplicates and follows aliases without limit.

This module knows nothing of what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NoReturn

from cpex.framework.loader.faults import START, Findings, Path, Place
from cpex.framework.loader.source_map import Node
from cpex.framework.loader.suggest import shown
from cpex.framework.loader.template_grammar import SUPPORTED, UndefinedVariable
from cpex.framework.loader.templates import Expansion, TemplatedText, mentions_env

__all__ = ["read_yaml"]

MAX_DEPTH = 100
"""Levels of nesting, aliases followed."""
_TOO_DEEP = f"the document nests deeper than {MAX_DEPTH} levels"
MAX_VALUES = 1_000_000
"""Values in the document, aliases followed. A few lines of nested aliases can stand for billions."""
MAX_NUMBER = 400
"""Characters of a number. Converting a number costs the square of its length."""

_TAG = "tag:yaml.org,2002:"
_KEY_MARKS = frozenset({_TAG + "merge", _TAG + "value"})
"""What a plain `<<` and a plain `=` resolve to."""
_COLLECTIONS = frozenset(_TAG + name for name in ("map", "seq", "set", "omap", "pairs"))
_MERGE = object()
"""Value of the key `<<`."""
_NUMBERS = frozenset({_TAG + "int", _TAG + "float"})
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_yaml(text: str, findings: Findings, templates: TemplatedText | None = None) -> Node | None:
    """Read one document; what is wrong with it goes to `findings`.

    Args:
        text: The configuration, with placeholders when `templates` are given.

    Returns:
        The root, or `None` for an empty document and for one that cannot be read; the latter leaves a fault. After a
        fault that leaves the structure whole, such as a duplicate key, reading goes on.
    """
    bad = _NOT_PRINTABLE.search(text)
    if bad is not None:
        message = f"character {bad[0]!a} is not allowed in YAML"
        findings.fault(
            "config-yaml-syntax", message, _place_of(text, bad.start()), help="remove it, or write it as an escape"
        )
        return None
    import yaml  # costs a tenth of the whole import budget, so only when there is YAML to read

    try:
        return _Composer(text, findings, templates).document()
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        _report_syntax(error, text, findings, templates)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        findings.fault("config-yaml-syntax", f"the text is not YAML: {type(error).__name__}", START)
    return None


class _Stop(Exception):
    """Reading cannot go on; the fault has been reported."""


@dataclass(slots=True)
class _Frame:
    """A collection that is being read."""

    node: Node
    tag: str | None
    anchor: str | None
    path: Path
    key: Node | None = None
    """The key that waits for its value."""
    merges: list[Node] | None = None
    """What `<<` names, in order."""


class _Composer:
    def __init__(self, text: str, findings: Findings, templates: TemplatedText | None) -> None:
        import yaml

        self._yaml = yaml
        self._loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        self._findings = findings
        self._templates = templates
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._open_anchors: set[str] = set()
        self._root: Node | None = None

    def document(self) -> Node | None:
        """Read events up to the end of the stream."""
        documents = 0
        events = self._yaml.events
        try:
            while (event := self._loader.get_event()) is not None:
                if isinstance(event, events.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._stop(
                            "config-yaml-syntax",
                            "the file holds more than one YAML document",
                            _mark(event),
                            "keep one document, without a second `---`",
                        )
                elif isinstance(event, events.StreamEndEvent):
                    break
                else:
                    self._handle(event)
        finally:
            self._loader.dispose()
        return self._root

    def _handle(self, event: Any) -> None:
        events = self._yaml.events
        anchor = getattr(event, "anchor", None)
        if isinstance(event, events.AliasEvent):
            self._add(self._alias(event), None)
        elif anchor is not None and (anchor in self._anchors or anchor in self._open_anchors):
            message = f"anchor {shown('&' + anchor)} is defined a second time"
            self._stop("config-yaml-syntax", message, _mark(event), "give each anchor a name of its own")
        elif isinstance(event, events.ScalarEvent):
            self._add(self._scalar(event), event.anchor)
        elif isinstance(event, events.MappingStartEvent):
            self._begin(event, Node(*_mark(event), value={}, keys={}))
        elif isinstance(event, events.SequenceStartEvent):
            self._begin(event, Node(*_mark(event), value=[], items=[]))
        elif isinstance(event, events.CollectionEndEvent):
            self._end()

    def _begin(self, event: Any, node: Node) -> None:
        if len(self._frames) >= MAX_DEPTH:
            self._too_deep(node)
        if event.anchor is not None:
            self._open_anchors.add(event.anchor)
        path = self._child_path()
        self._frames.append(_Frame(node, event.tag, event.anchor, path))

    def _end(self) -> None:
        frame = self._frames.pop()
        if frame.merges:
            self._merge(frame)
        if frame.anchor is not None:
            self._open_anchors.discard(frame.anchor)
        self._retag(frame)
        self._add(frame.node, frame.anchor)

    def _add(self, node: Node, anchor: str | None) -> None:
        """Put a finished node where it belongs."""
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._frames:
            self._root = node
            return
        frame = self._frames[-1]
        parent = frame.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.size > MAX_VALUES:
            self._stop(
                "config-too-large",
                f"the document stands for more than {MAX_VALUES:,} values",
                node.place,
                "look for aliases of aliases",
            )
        if parent.height + len(self._frames) - 1 > MAX_DEPTH:
            self._too_deep(node)
        if parent.items is not None:
            parent.items.append(node)
            parent.value.append(node.value)
        elif frame.key is None:
            frame.key = self._check_key(node)
        else:
            self._set(frame, frame.key, node)
            frame.key = None

    def _set(self, frame: _Frame, key: Node, node: Node) -> None:
        parent = frame.node
        assert parent.keys is not None
        if key.value is _MERGE:
            if frame.merges is not None:
                # Releases of PyYAML disagree about which of two wins, so nobody may depend on it.
                help = "name all mappings in one list, the one that wins first: `<<: [*a, *b]`"
                self._duplicate(frame, key, "<<", help)
            frame.merges = [*(frame.merges or []), *self._merged_mappings(node)]
            return
        if key.value in parent.keys:
            first = parent.keys[key.value][0]
            self._duplicate(frame, key, key.value, f"the first one is in line {first.line}; keep one of them")
        parent.keys[key.value] = (key, node)
        parent.value[key.value] = node.value

    def _duplicate(self, frame: _Frame, key: Node, step: Any, help: str) -> None:
        message = f"key {shown(key.source)} stands here a second time"
        self._findings.lapse("config-duplicate-key", message, key.place, (*frame.path, step), help)

    def _check_key(self, node: Node) -> Node:
        if node.keys is not None or node.items is not None or not isinstance(node.value, Hashable):
            self._stop(
                "config-yaml-syntax",
                "a key must be a single value, not a list or a mapping",
                node.place,
                "text that begins with `{` or `[` needs quotes",
            )
        return node

    def _merged_mappings(self, node: Node) -> list[Node]:
        """The mappings that the value of `<<` names; the one that wins stands last, as in PyYAML."""
        candidates = [node] if node.keys is not None else node.items
        if candidates is None or any(each.keys is None for each in candidates):
            self._stop(
                "config-yaml-syntax",
                "`<<` merges a mapping or a list of mappings",
                node.place,
                "name one with an alias, e.g. `<<: *defaults`",
            )
        return candidates if node.keys is not None else candidates[::-1]

    def _merge(self, frame: _Frame) -> None:
        node = frame.node
        assert node.keys is not None
        own = node.keys
        merged: dict[Any, tuple[Node, Node]] = {}
        for each in frame.merges or ():
            merged.update(each.keys or {})
        node.keys = {**merged, **own}
        node.value = {key: pair[1].value for key, pair in node.keys.items()}

    def _retag(self, frame: _Frame) -> None:
        """Explicit tags of collections: sets and ordered mappings as PyYAML makes them, nothing else."""
        node, tag = frame.node, frame.tag
        if tag is None or tag in ("!", _TAG + ("map" if node.keys is not None else "seq")):
            return
        if tag == _TAG + "set" and node.keys is not None:
            node.value = set(node.keys)
        elif (
            tag in (_TAG + "omap", _TAG + "pairs")
            and node.items is not None
            and all(each.keys is not None and len(each.keys) == 1 for each in node.items)
        ):
            node.value = [next(iter(each.value.items())) for each in node.items]
        else:
            self._unknown_tag(tag, node)

    def _alias(self, event: Any) -> Node:
        name = event.anchor
        if name in self._open_anchors:
            self._stop(
                "config-yaml-syntax", f"alias {shown('*' + name)} stands inside the value that it names", _mark(event)
            )
        if name not in self._anchors:
            self._stop(
                "config-yaml-syntax",
                f"alias {shown('*' + name)} has no anchor above it",
                _mark(event),
                f"text that begins with `*` needs quotes; an anchor is written `&{name[:40]}`",
            )
        return self._anchors[name]

    def _scalar(self, event: Any) -> Node:
        node = Node(*_mark(event), source=event.value)
        text, tag, plain = event.value, event.tag, event.implicit[0]
        expansion = self._expand(text, node)
        if expansion is not None:
            if plain and expansion.typed is not None:
                node.value = expansion.typed[0]
                return node
            # As it would have been read, had the value stood in the text: blanks at the ends do not count.
            text = expansion.text.strip(" \t\r\n") if plain else expansion.text
        if tag is None or tag == "!":
            tag = self._loader.resolve(self._yaml.ScalarNode, text, event.implicit)
        unset = expansion is not None and bool(expansion.failures)
        node.value = "" if unset and not text else self._construct(tag, text, node)
        return node

    def _construct(self, tag: str, text: str, node: Node) -> Any:
        if tag == _TAG + "str":
            return text
        if tag in _KEY_MARKS and (node.templated or self._is_key()):
            return _MERGE if tag == _TAG + "merge" and not node.templated else text
        if tag in _COLLECTIONS:
            return self._unknown_tag(tag, node)
        if tag in _NUMBERS and len(text) > MAX_NUMBER:
            self._stop(
                "config-yaml-value",
                f"a number may have at most {MAX_NUMBER} characters",
                node.place,
                "put it in quotes when it is text",
            )
        try:
            return self._loader.construct_object(self._yaml.ScalarNode(tag, text))
        except self._yaml.constructor.ConstructorError:
            return self._unknown_tag(tag, node)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError):
            # PyYAML converts what merely looks like a date or a number without checking it.
            kind = tag.removeprefix(_TAG)
            self._refuse(node, f"{shown(node.source)} is not a valid {kind}", "put it in quotes when it is text")
        return None

    def _expand(self, text: str, node: Node) -> Expansion | None:
        """Replace the templates of a scalar, and report those that have no value."""
        if self._templates is None:
            return None
        expansion = self._templates.expand(text)
        if expansion is None:
            if "{" in text and mentions_env(text):
                self._refuse(node, f"template in {shown(text)} is not understood", SUPPORTED, "config-template")
            return None
        node.templated, node.source = True, expansion.source
        for template, error in expansion.failures:
            place = template.line, template.column
            if isinstance(error, UndefinedVariable):
                # Where that is let pass, the empty text is a value like any other and is judged as one.
                node.failed = node.failed or self._findings.strict
                help = f'set it, or give a default: `{{{{ env.get("{error.name[:60]}", "…") }}}}`'
                self._findings.lapse("config-undefined-variable", str(error), place, self._child_path(), help)
            else:
                node.failed = True
                message = f"template {shown(template.text)}: {error}"
                self._findings.fault("config-template", message, place, self._child_path(), SUPPORTED)
        return expansion

    def _refuse(self, node: Node, message: str, help: str = "", code: str = "config-yaml-value") -> None:
        node.failed = True
        self._findings.fault(code, message, node.place, self._child_path(), help)

    def _is_key(self) -> bool:
        return bool(self._frames) and self._frames[-1].node.keys is not None and self._frames[-1].key is None

    def _child_path(self) -> Path:
        """The path of the value that comes next."""
        if not self._frames:
            return ()
        frame = self._frames[-1]
        if frame.node.items is not None:
            return (*frame.path, len(frame.node.items))
        key = frame.key
        return frame.path if key is None else (*frame.path, key.source if key.templated else key.value)

    def _unknown_tag(self, tag: str, node: Node) -> None:
        name = tag.replace(_TAG, "!!")
        if tag in _KEY_MARKS:
            self._refuse(node, f"{shown(node.source)} needs quotes to be text")
        else:
            message = f"the tag {shown(name)} does not fit this value or is not allowed"
            self._refuse(node, message, "text that begins with `!` needs quotes")

    def _too_deep(self, node: Node) -> NoReturn:
        self._stop("config-too-large", _TOO_DEEP, node.place)

    def _stop(self, code: str, message: str, place: Place, help: str = "") -> NoReturn:
        self._findings.fault(code, message, place, self._child_path(), help)
        raise _Stop


def _mark(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _place_of(text: str, index: int) -> Place:
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _report_syntax(error: Any, text: str, findings: Findings, templates: TemplatedText | None) -> None:
    """Translate an error of PyYAML's scanner or parser."""
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or "it cannot be read")
    lines = text.splitlines() or [""]
    number = min(mark.line, len(lines) - 1) if mark is not None else 0
    line = lines[number]
    # At the end of the text the parser stands in a line that does not exist.
    place = (number + 1, (mark.column if mark is not None and mark.line == number else len(line)) + 1)
    if "nesting depth" in problem:
        # PyYAML from 6.0.4 on has a bound of its own, which its look-ahead may reach before our count does.
        findings.fault("config-too-large", _TOO_DEEP, place)
        return
    if templates is not None:
        problem, line = templates.restore(problem), templates.restore(line)
    findings.fault("config-yaml-syntax", f"invalid YAML: {problem[:200]}", place, (), _syntax_help(line, problem))


def _syntax_help(line: str, problem: str) -> str:
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces; YAML allows no tabs there"
    if "{{" in line or "{%" in line:
        return "text with braces needs quotes around all of it"
    if "mapping values" in problem:
        return "text that contains `: ` needs quotes"
    return "look at the indentation and the quotes of this line and of the one above"
