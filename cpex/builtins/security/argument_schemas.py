"""Whether a tool's arguments fit a JSON Schema, in time that no argument can stretch.

Schemas are compiled at the start. Their patterns run on an engine that does not backtrack, and nothing is fetched: a
reference outside the schema is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from cpex.builtins.globs import glob_matcher
from cpex.builtins.text import leaves

__all__ = ["ArgumentSchemas", "Misfit"]

_MAX_NAMED = 10
"""Misfits that a denial names."""
_KEY_SHOWN = 64
"""Characters of a key that a path shows."""

Misfit = dict[str, str]
"""`{"path": "args.query", "rule": "type"}`; never the value."""


class ArgumentSchemas:
    """Schemas by tool, as names or globs. Immutable."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        """Compile the schemas.

        Raises:
            ModuleNotFoundError: The library is not installed; the message names the extra.
            ValueError: A schema is none, refers to something outside itself, or has a pattern that needs backtracking.
        """
        self._schemas = [(glob_matcher([glob]), _compiled(glob, schema)) for glob, schema in schemas.items()]

    def covers(self, tool: str) -> bool:
        """Whether any schema is about a tool."""
        return any(matches(tool) for matches, _ in self._schemas)

    def misfits(self, tool: str, args: Mapping[str, Any]) -> list[Misfit]:
        """Where arguments do not fit the schemas of a tool; all of those that match its name count."""
        found: list[Misfit] = []
        for matches, schema in self._schemas:
            if matches(tool):
                found += _misfits(schema, args, _MAX_NAMED - len(found))
        return found


def _misfits(schema: Any, args: Mapping[str, Any], at_most: int) -> list[Misfit]:
    found: list[Misfit] = []
    if at_most <= 0:
        return found
    try:
        # SECURITY: the library recurses without a limit, and the process would die of what is nested deeply enough.
        deque(leaves(args, "args"), maxlen=0)
        for error in schema.iter_errors(args):
            rule = error.schema_path[-1] if error.schema_path else "false"
            found.append({"path": _path(error.instance_path), "rule": str(rule)})
            if len(found) >= at_most:
                break
    except ValueError:
        # Nested too deeply, or with keys that are no text: no JSON that anybody should have to read.
        found.append({"path": "args", "rule": "json"})
    return found


def _path(steps: list[Any]) -> str:
    text = "args"
    for step in steps:
        key = str(step)[:_KEY_SHOWN]
        text += f"[{step}]" if isinstance(step, int) else f".{key}" if key.isidentifier() else f"[{key!r}]"
    return text


def _compiled(tool: str, schema: Any) -> Any:
    try:
        library = import_module("jsonschema_rs")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "schemas of arguments need the library `jsonschema-rs`; install it with `pip install 'cpex[schemas]'`",
            name="jsonschema_rs",
        ) from error
    try:
        # SECURITY: the library would fetch references over HTTP, and its default engine backtracks.
        return library.validator_for(schema, retriever=_refuse, pattern_options=library.RegexOptions())
    except (ValueError, TypeError, library.ReferencingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the schema of tool `{tool}` cannot be used: {reason}") from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"`{uri}` is outside the schema, and nothing is fetched; put it under `$defs`")
