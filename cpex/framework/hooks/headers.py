"""HTTP headers as a payload, and the farewell to headers inside other payloads.

Payloads of several families carry a `headers` field of their own. It works, and constructing such a payload with
headers warns, because `extensions.http.headers` is where they belong: gated by capability, the same for every hook.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, overload

from pydantic import AfterValidator, RootModel

from cpex.framework.models.payload import PluginPayload

__all__ = ["HttpHeaderPayload"]


class HttpHeaderPayload(RootModel[dict[str, str]], PluginPayload):
    """A header map that is a payload: `{name: value}`, dumped as the bare object.

    Indexing and `in` take names as they are spelled; `get` ignores case, as HTTP does (RFC 9110, section 5.1). Although
    the model is frozen, `headers[name] = value` writes into the map; the value is not validated.
    """

    def __getitem__(self, name: str) -> str:
        return self.root[name]

    def __setitem__(self, name: str, value: str) -> None:
        self.root[name] = value

    # The base model iterates over pairs of field and value; a header map iterates over names.
    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)

    def __contains__(self, name: object) -> bool:
        return name in self.root

    def __len__(self) -> int:
        return len(self.root)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first header of that name in any spelling, an exact one preferred; else `default`."""
        if (exact := self.root.get(name)) is not None:
            return exact
        wanted = name.lower()
        return next((value for known, value in self.root.items() if known.lower() == wanted), default)

    def keys(self) -> KeysView[str]:
        """The names, spelled as they were given."""
        return self.root.keys()

    def values(self) -> ValuesView[str]:
        """The values, in the order of the names."""
        return self.root.values()

    def items(self) -> ItemsView[str, str]:
        """Pairs of name and value."""
        return self.root.items()


_places: dict[str, tuple[str, int, str]] = {}
_registry: dict[Any, Any] = {}


def warns_of_headers(class_name: str) -> AfterValidator:
    """Mark a payload's `headers` field as deprecated: a `DeprecationWarning` when the field is given a value.

    Under the usual filters the warning is shown once per process and class, at the place that caused it first. It is
    silenced with `warnings.filterwarnings("ignore", r".*\\.headers is deprecated", DeprecationWarning)`.
    """
    text = f"{class_name}.headers is deprecated; pass headers in extensions.http.headers instead"

    def check(headers: HttpHeaderPayload | None) -> HttpHeaderPayload | None:
        if headers is not None:
            # The interpreter tells repetitions by registry, text and line. Once a warning was shown its place is kept,
            # so that a host that builds payloads in many places hears of it once; a changed filter is still obeyed.
            place = _places.get(text)
            if place is None or (text, DeprecationWarning, place[1]) not in _registry:
                place = _places[text] = _calling_place()
            warnings.warn_explicit(text, DeprecationWarning, *place, _registry)
        return headers

    return AfterValidator(check)


def _calling_place() -> tuple[str, int, str]:
    """File, line and module of the code that constructs the payload: the first frame outside pydantic and of ours."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("pydantic.", __name__)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__", "")
