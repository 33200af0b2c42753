"""Manifests of plugins: where they are found, what kinds they may name, how older ones are read."""

from __future__ import annotations

import difflib
import logging
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from cpex.framework.errors import cause_text
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.models.manifest import PluginManifest

__all__ = [
    "KNOWN_KINDS",
    "LOADABLE_KINDS",
    "MANIFEST",
    "classify_plugin_kind",
    "convert_fqn_kind_in_place",
    "manifest_in",
    "manifest_of",
    "supported_kinds_message",
    "unpack",
]

logger = logging.getLogger(__name__)

MANIFEST = "plugin-manifest.yaml"
KNOWN_KINDS = ("builtin", "native", "wasm", "external", "isolated_venv", "PDP")
LOADABLE_KINDS = ("external", "isolated_venv")
"""Those that name something that can be run; the others name no class."""
_FQN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\.[A-Z]\w*", re.ASCII)
MAX_UNPACKED_BYTES = 500_000_000


def classify_plugin_kind(kind: str) -> Literal["known", "fqn", "reject"]:
    """Whether a kind is a word that is known, the dotted path of a class, or neither."""
    trimmed = kind.strip()
    if trimmed in KNOWN_KINDS:
        return "known"
    return "fqn" if _FQN.fullmatch(trimmed) else "reject"


def supported_kinds_message() -> str:
    """Which kinds there are, for messages."""
    return f"supported kinds: {', '.join(KNOWN_KINDS)}, or the dotted path of a class such as package.module.Class"


def convert_fqn_kind_in_place(data: dict[str, Any], convert: bool = True) -> dict[str, Any]:
    """Let a plugin that is named by its class run in an environment of its own.

    The kind becomes `isolated_venv`, and the path moves to `default_config.class_name`, where another that is there
    already wins, with a WARNING.

    Args:
        data: A manifest as it was read; it is changed.
        convert: Without it a class path stays, and a kind that is refused gives a WARNING only.

    Raises:
        ValueError: The kind is neither known nor a class path.
    """
    kind = str(data.get("kind", "")).strip()
    found = classify_plugin_kind(kind)
    if found == "reject":
        message = f"unsupported plugin kind '{kind}'; {supported_kinds_message()}"
        if convert:
            raise ValueError(message)
        logger.warning("%s", message)
    if found != "fqn" or not convert:
        return data
    settings = data.get("default_config") or {}
    if settings.setdefault("class_name", kind) != kind:
        logger.warning(
            "The manifest's class_name '%s' differs from its kind '%s' and wins", settings["class_name"], kind
        )
    data["kind"], data["default_config"] = "isolated_venv", settings
    return data


def manifest_of(text: str, name: str, *, convert: bool = True, require_runnable: bool = True) -> PluginManifest:
    """A manifest from its text, with what installers fill in.

    Args:
        name: Given to a manifest without one.
        convert: See `convert_fqn_kind_in_place`.
        require_runnable: Refuse kinds that nothing here can run, and give a WARNING for hooks that nothing here calls.

    Raises:
        RuntimeError: The text is no manifest; the message says why.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RuntimeError(f"Failed to parse manifest YAML of {name}: {error}") from error
    if not isinstance(data, dict):
        raise RuntimeError(f"Invalid manifest format of {name}: it must be a mapping")
    data.setdefault("name", name)
    data.setdefault("tags", [])
    if "default_configs" in data:
        older = data.pop("default_configs")
        data.setdefault("default_config", older or {})
    if data.get("default_config", {}) is None:
        data["default_config"] = {}
    try:
        convert_fqn_kind_in_place(data, convert)
        manifest = PluginManifest.model_validate(data)
    except ValidationError as error:
        raise RuntimeError(f"Failed to validate manifest of {name}: {cause_text(error)}") from error
    except ValueError as error:
        raise RuntimeError(f"Failed to validate manifest of {name}: {error}") from error
    # SECURITY: the name becomes a folder of the catalogue.
    if manifest.name in ("", ".", "..") or set(manifest.name) & set("/\\\0"):
        wrong = f"`name: {manifest.name!r}` cannot be a folder's name"
        raise RuntimeError(f"Failed to validate manifest of {name}: {wrong}")
    if require_runnable and manifest.kind in KNOWN_KINDS and manifest.kind not in LOADABLE_KINDS:
        raise RuntimeError(
            f"Failed to validate manifest of {name}: kind `{manifest.kind}` names no class, so nothing could be "
            "loaded; write the dotted path of the plugin's class"
        )
    if require_runnable:
        _doubt_hooks(manifest)
    return manifest


def _doubt_hooks(manifest: PluginManifest) -> None:
    # No error: a package may bring hooks of its own, which are known once it is imported.
    registry = get_hook_registry()
    for hook in manifest.available_hooks:
        if not registry.is_registered(hook):
            close = difflib.get_close_matches(hook, registry.get_registered_hooks(), n=1)
            hint = f"did you mean `{close[0]}`?" if close else "if the plugin does not define it, it is never called"
            logger.warning("The manifest of %s lists hook `%s`, which is not known here; %s", manifest.name, hook, hint)


def manifest_in(folder: Path) -> Path:
    """The manifest in a folder, or one below it; the one nearest to the top.

    Raises:
        FileNotFoundError: There is none.
    """
    found = sorted(folder.rglob(MANIFEST), key=lambda path: (len(path.parts), str(path)))
    if not found:
        raise FileNotFoundError(f"{MANIFEST} not found in {folder.name}")
    return found[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a package.

    Raises:
        RuntimeError: It is of no known form, would write outside of the folder, or is too large.
    """
    name = archive.name
    if name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                # SECURITY: a name may climb out of the folder.
                target = (folder / member.filename).resolve()
                if Path(member.filename).is_absolute() or not target.is_relative_to(folder.resolve()):
                    raise RuntimeError(f"Unsafe path in {name}: {member.filename}")
            _check_size(sum(member.file_size for member in file.infolist()), name)
            file.extractall(folder)
    elif name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")):
        with tarfile.open(archive) as file:
            _check_size(sum(member.size for member in file.getmembers()), name)
            try:
                file.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise RuntimeError(f"Unsafe path in {name}: {error}") from error
    else:
        raise RuntimeError(f"Unsupported package format: {name}")


def _check_size(size: int, name: str) -> None:
    if size > MAX_UNPACKED_BYTES:
        raise RuntimeError(f"{name} would unpack to more than {MAX_UNPACKED_BYTES:,} bytes")
