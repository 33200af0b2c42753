"""Small helpers with a public address: matching, names and imports, reading objects of unknown shape."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import operator
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cpex.framework.conditions import compile_conditions, get_matchable_value, matches, payload_matches
from cpex.framework.models.config import base_content_type

if TYPE_CHECKING:
    from cpex.framework.responses import ORJSONResponse as ORJSONResponse

__all__ = [
    "StructuredData",
    "coerce_messages",
    "coerce_nested",
    "compile_conditions",
    "find_package_path",
    "get_attr",
    "get_matchable_value",
    "import_module",
    "manifest_filename_for_class",
    "matches",
    "normalize_content_type",
    "parse_class_name",
    "payload_matches",
]

logger = logging.getLogger(__name__)

# SECURITY: reading what a plugin or a server gave must end soon, however deep or wide it is made.
MAX_COERCED_DEPTH = 20
"""Levels."""
MAX_COERCED_ENTRIES = 500
"""Entries of one container."""

_MANIFEST = "plugin-manifest.yaml"
_BLOCKED_MODULES = frozenset(
    {
        "os",
        "sys",
        "subprocess",
        "shutil",
        "socket",
        "http.server",
        "ctypes",
        "importlib",
        "builtins",
        "code",
        "codeop",
        "compileall",
        "runpy",
    }
)


def __getattr__(name: str) -> Any:
    # Its base class comes with a web framework, which most programs do not have.
    if name == "ORJSONResponse":
        from cpex.framework.responses import ORJSONResponse

        return ORJSONResponse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def normalize_content_type(content_type: str) -> str:
    """A content type without its parameters, trimmed and in lower case; empty for what is no text."""
    return base_content_type(content_type)


def parse_class_name(name: str) -> tuple[str, str]:
    """Split a dotted path into module and class: `a.b.C` gives `("a.b", "C")`; without a dot the module is empty."""
    module, _, cls = name.rpartition(".")
    return module, cls


def manifest_filename_for_class(class_name: str) -> str:
    """File name of the manifest of an installed plugin class, e.g. `pkg-module-Class.plugin-manifest.yaml`.

    Characters that are no letters, digits, hyphens or underscores become hyphens, and none is left at either end.
    """
    stem = re.sub(r"[^\w-]", "-", class_name.strip()).strip("-")
    return f"{stem or 'plugin'}.{_MANIFEST}"


@lru_cache(maxsize=256)
def import_module(mod_name: str) -> ModuleType:
    """Import a plugin's module by its dotted name.

    Names that are paths, and modules that would hand a plugin kind the system itself, are refused. This keeps mistakes
    in a configuration from doing harm; it is no sandbox, for a plugin's own code imports what it likes.

    Raises:
        ImportError: The name is refused, or the module cannot be found.
    """
    if ".." in mod_name or "/" in mod_name or "\\" in mod_name:
        raise ImportError(f"plugin module name {mod_name!r} contains invalid characters; write a dotted name")
    if any(mod_name == blocked or mod_name.startswith(f"{blocked}.") for blocked in _BLOCKED_MODULES):
        raise ImportError(f"plugin module {mod_name!r} is blocked for security; name a module of the plugin's package")
    return importlib.import_module(mod_name)


def find_package_path(package_name: str) -> Path:
    """The folder of an installed plugin package: that of its manifest, else that of the package.

    Raises:
        RuntimeError: Nothing of that name is installed.
    """
    location = _manifest_folder(package_name) or _package_folder(package_name)
    if location is None:
        raise RuntimeError(
            f"package {package_name!r} is not installed: there is no distribution or module of that name"
        )
    return location


def _manifest_folder(name: str) -> Path | None:
    # Reading metadata draws in the mail parser; only installers and isolated plugins come here.
    from importlib.metadata import PackageNotFoundError, files

    try:
        listed = files(name) or []
    # An empty name is a ValueError.
    except (PackageNotFoundError, ValueError):
        return None
    return next((Path(str(file.locate())).parent for file in listed if file.name == _MANIFEST), None)


def _package_folder(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name.replace("-", "_"))
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin).parent if spec.origin and spec.has_location else None


def get_attr(obj: Any, attr: str, default: Any = "") -> Any:
    """Read a value from an object or a mapping; what is missing or falsy gives the default.

    A mapping is asked for its key first, so that one named like a method of dicts is found.
    """
    if obj is None:
        return default
    if isinstance(obj, Mapping):
        if attr in obj:
            return obj[attr] or default
        # Attributes of a mapping class of the host's count, the methods of mappings do not.
        return default if hasattr(dict, attr) else getattr(obj, attr, None) or default
    return getattr(obj, attr, None) or default


class StructuredData(BaseModel):
    """A JSON object whose keys can be read and set as attributes.

    A key that is named like a method of models is shadowed by it as an attribute; `data["copy"]` reads it.
    """

    model_config = ConfigDict(extra="allow", defer_build=True)

    def __getitem__(self, key: str) -> Any:
        return (self.__pydantic_extra__ or {})[key]

    def __contains__(self, key: object) -> bool:
        return key in (self.__pydantic_extra__ or {})


def coerce_nested(v: Any, *, whole: bool = False, _depth: int = 0) -> Any:
    """Turn dicts into `StructuredData`, at every depth of dicts and lists; everything else stays as it is.

    Below 20 levels values stay as they are.

    Args:
        whole: Whether tuples are gone through as well, and dicts and lists of any size; otherwise one of more than 500
            entries stays as it is, with a WARNING.

    Raises:
        TypeError: A dict has a key that is no string.
    """
    if _depth >= MAX_COERCED_DEPTH or not isinstance(v, dict | list | tuple if whole else dict | list):
        return v
    if len(v) > MAX_COERCED_ENTRIES and not whole:
        logger.warning(
            "A %s of %d entries is left as it is (at most %d)", type(v).__name__, len(v), MAX_COERCED_ENTRIES
        )
        return v
    if isinstance(v, dict):
        return StructuredData(**{key: coerce_nested(item, whole=whole, _depth=_depth + 1) for key, item in v.items()})
    items = [coerce_nested(item, whole=whole, _depth=_depth + 1) for item in v]
    if isinstance(v, list):
        return items
    # Named tuples are made of their items one by one.
    make = getattr(type(v), "_make", tuple)
    return v if all(map(operator.is_, items, v)) else make(items)


def coerce_messages(v: Any) -> Any:
    """Turn the dicts of a list of messages into `StructuredData`; other elements, and what is no list, stay."""
    return [coerce_nested(item) if isinstance(item, dict) else item for item in v] if isinstance(v, list) else v
