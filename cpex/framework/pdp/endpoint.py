"""URLs with placeholders, filled from a question so that no value can lead the request elsewhere."""

from __future__ import annotations

import re
import string
from typing import Any
from urllib.parse import quote, urlsplit

from cpex.framework.validators import validate_plugin_url

__all__ = ["Endpoint"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Endpoint:
    """A URL whose path and query may hold `{key}`, to be filled with text of the question's top level."""

    def __init__(self, template: str) -> None:
        """Check the URL and its placeholders.

        Raises:
            ValueError: The URL is one that the framework does not connect to, or a placeholder is not `{key}` in the
                path or the query.
        """
        self.template = template
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"endpoint {template!r} has a broken placeholder: {error}") from error
        self.names = [name for _, name, _, _ in parts if name is not None]
        for _, name, spec, conversion in parts:
            if name is not None and (not _NAME.fullmatch(name) or spec or conversion):
                raise ValueError(f"endpoint {template!r}: a placeholder is a key in braces, such as {{tool}}")
        validate_plugin_url(template.format(**dict.fromkeys(self.names, "x")), "endpoint")
        # SECURITY: a value in the host's place would choose whom to ask.
        beginning = "://".join(urlsplit(template)[:2])
        if "{" in beginning:
            raise ValueError(f"endpoint {template!r}: placeholders may stand in the path and the query only")

    @property
    def shown(self) -> str:
        """The URL for messages, without its query, which may hold a key."""
        return self.template.partition("?")[0]

    def fill(self, question: dict[str, Any]) -> str:
        """The URL for one question; each value becomes one path segment, whatever is in it.

        Raises:
            ValueError: A placeholder has no text to fill it.
        """
        return self.template.format(**{name: _segment(name, question) for name in self.names})


def _segment(name: str, question: dict[str, Any]) -> str:
    value = question.get(name)
    if not isinstance(value, str):
        raise ValueError(f"the endpoint needs `{name}`, and the question has no text under that key")
    # SECURITY: escaping leaves dots alone, and these would climb or vanish.
    if value in ("", ".", ".."):
        raise ValueError(f"the endpoint needs `{name}`, and {value!r} cannot be a part of a path")
    return quote(value, safe="")
