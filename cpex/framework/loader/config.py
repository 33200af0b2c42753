"""Configuration files: from text to a `Config`, and back.

A file is read completely before anything is judged: YAML with the places of all values, then unknown keys, then the
models, then the rules between plugins. So one attempt reports everything that is wrong, in order of position. What
the environment contributes is put in while reading (`templates.py`).

The strictness lives here. The models themselves accept what they do not know, because the configurations that remote
ends and workers exchange must stay readable across versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from cpex.framework.errors import ConfigError, ConfigFileNotFound, Fault
from cpex.framework.loader.faults import START, Findings
from cpex.framework.loader.rules import IGNORED_KEYS, report_broken_rules
from cpex.framework.loader.schema import report_refused_values, report_unknown_keys
from cpex.framework.loader.source_map import SourceMap
from cpex.framework.loader.templates import TemplatedText
from cpex.framework.loader.yaml_source import read_yaml
from cpex.framework.models.config import Config

__all__ = [
    "CheckedConfig",
    "ConfigLoader",
    "ConfigSaver",
    "LoadedConfig",
    "config_digest",
    "plugin_locations",
    "replace_file",
]

logger = logging.getLogger(__name__)

MAX_BYTES = 16_000_000
"""Size of the largest file that is read."""


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration that can be used, and where its parts stand."""

    config: Config
    source: SourceMap
    """Line and column of every key and value."""
    warnings: tuple[Fault, ...] = ()
    """What the operator should know, in order of position."""
    file: str | None = None
    """As given by the caller; `None` when the configuration came as text."""

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 hexadecimal digits: the same for two texts that configure the same."""
        return config_digest(self.config)

    def location(self, *path: str | int) -> str:
        """Where a value stands, as `file:line:column`; without the file when there is none."""
        line, column = self.source.place(path)
        return ":".join(str(part) for part in (self.file, line, column) if part is not None)

    def plugin_locations(self) -> dict[str, str]:
        """Plugin name -> where its entry begins, as `location` gives it."""
        return {plugin.name: self.location("plugins", index) for index, plugin in enumerate(self.config.plugins or ())}


@dataclass(frozen=True)
class CheckedConfig:
    """All that there is to say about a configuration, good or bad."""

    config: Config | None
    """`None` when there are faults."""
    source: SourceMap
    faults: tuple[Fault, ...]
    """Why it cannot be used, in order of position."""
    warnings: tuple[Fault, ...]
    """What the operator should know, in order of position."""
    file: str | None = None

    def loaded(self) -> LoadedConfig:
        """The usable configuration.

        Raises:
            ConfigError: There are faults; it carries all of them.
        """
        if self.config is None:
            raise ConfigError(self.faults)
        return LoadedConfig(self.config, self.source, self.warnings, self.file)


class ConfigLoader:
    """Reads configuration files.

    Whether unknown keys, duplicate keys and undefined variables are faults or warnings is decided by `strict`, and
    where that is not given by the setting `PLUGINS_STRICT_CONFIG`, which is on by default.
    """

    @staticmethod
    def load_config(config: str | os.PathLike[str], use_jinja: bool = True) -> Config:
        """Read a configuration file; warnings are logged.

        Args:
            config: Path of a YAML file. The empty path is the empty configuration.
            use_jinja: Put environment variables in place of `{{ env.X }}`.

        Raises:
            ConfigFileNotFound: The file is missing or cannot be read.
            ConfigError: The file is no valid configuration; all that is wrong is listed.
        """
        if not os.fspath(config):
            return Config()
        loaded = ConfigLoader.load(config, use_jinja=use_jinja)
        _remember(loaded)
        return loaded.config

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        use_jinja: bool = True,
        strict: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> LoadedConfig:
        """Read a configuration file, and keep where its parts stand; warnings are logged.

        Args:
            env: Read in place of the process environment.

        Raises:
            ConfigFileNotFound: The file is missing or cannot be read.
            ConfigError: The file is no valid configuration; all that is wrong is listed.
        """
        return _logged(ConfigLoader.check(path, use_jinja=use_jinja, strict=strict, env=env).loaded())

    @staticmethod
    def load_text(
        text: str | bytes,
        *,
        file: str | None = None,
        use_jinja: bool = True,
        strict: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> LoadedConfig:
        """Read a configuration from text; warnings are logged.

        Args:
            file: A name to show in places.

        Raises:
            ConfigError: The text is no valid configuration; all that is wrong is listed.
        """
        return _logged(ConfigLoader.check_text(text, file=file, use_jinja=use_jinja, strict=strict, env=env).loaded())

    @staticmethod
    def check(
        path: str | os.PathLike[str],
        *,
        use_jinja: bool = True,
        strict: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CheckedConfig:
        """Find everything that is wrong with a configuration file, without loading a plugin or logging.

        Raises:
            ConfigFileNotFound: The file is missing or cannot be read.
        """
        data, file = _read(path), os.fspath(path)
        return ConfigLoader.check_text(data, file=file, use_jinja=use_jinja, strict=strict, env=env)

    @staticmethod
    def check_text(
        text: str | bytes,
        *,
        file: str | None = None,
        use_jinja: bool = True,
        strict: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CheckedConfig:
        """Find everything that is wrong with a configuration given as text or as UTF-8 bytes."""
        findings = Findings(file, strict=_strict() if strict is None else strict)
        decoded = _decode(text, findings)
        source, config = SourceMap(None), None
        if decoded is not None:
            templates = TemplatedText(decoded, os.environ if env is None else env) if use_jinja else None
            source, config = _interpret(decoded, templates, findings)
        faults = findings.faults
        return CheckedConfig(None if faults else config, source, faults, findings.warnings, file)


_locations: dict[int, tuple[weakref.ref[Config], dict[str, str]]] = {}
"""Identity of a configuration that somebody holds -> itself, and its plugins' places. (Its values are no key.)"""


def _remember(loaded: LoadedConfig) -> None:
    key = id(loaded.config)
    reference = weakref.ref(loaded.config, lambda _: _locations.pop(key, None))
    _locations[key] = (reference, loaded.plugin_locations())


def plugin_locations(config: Config) -> dict[str, str]:
    """Plugin name -> where its entry begins, for what `ConfigLoader.load_config` has returned; empty for any other."""
    reference, locations = _locations.get(id(config), (None, {}))
    return dict(locations) if reference is not None and reference() is config else {}


class ConfigSaver:
    """Writes configuration files."""

    @staticmethod
    def save_config(config: Config, config_path: str | os.PathLike[str]) -> None:
        """Write a configuration as YAML, replacing the file in one step.

        Comments and templates of the file that it was read from are not kept: what came from the environment is
        written out, so a new file can be read by its owner only. An existing file keeps its permissions.

        Raises:
            RuntimeError: The file cannot be written; an existing one is unchanged.
        """
        import yaml

        text = yaml.safe_dump(config.model_dump(mode="json"), default_flow_style=False, allow_unicode=True)
        try:
            replace_file(FilePath(config_path).resolve(), text)
        except OSError as error:
            raise RuntimeError(f"Error saving PluginConfig to {os.fspath(config_path)}: {error.strerror}") from error


def config_digest(config: Config) -> str:
    """`sha256:` and 64 hexadecimal digits of a configuration's canonical form.

    The canonical form is the JSON text of everything that differs from its default, with sorted keys and no blanks.
    """
    form = _canonical(config.model_dump(exclude_defaults=True))
    text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: Any) -> Any:
    """JSON values for all that YAML and the models can hold."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {key: _canonical(each) for key, each in value.items()}
        return sorted(([repr(key), _canonical(each)] for key, each in value.items()), key=lambda pair: str(pair[0]))
    if isinstance(value, set | frozenset):
        return sorted((_canonical(each) for each in value), key=repr)
    if isinstance(value, list | tuple):
        return [_canonical(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _interpret(text: str, templates: TemplatedText | None, findings: Findings) -> tuple[SourceMap, Config | None]:
    root = read_yaml(templates.text if templates is not None else text, findings, templates)
    source = SourceMap(root, templates.scrub if templates is not None else str)
    if root is None or root.value is None:
        if not findings.faults:
            findings.warn("config-empty", "the configuration is empty, so no plugin runs", START)
        return source, Config()
    if root.keys is None or not isinstance(root.value, dict):
        help = "begin with keys such as `plugins:`"
        findings.fault("config-type", "the configuration must be a mapping of keys to values", root.place, (), help)
        return source, None
    report_unknown_keys(Config, root, findings, IGNORED_KEYS)
    report_broken_rules(root, findings)
    try:
        return source, Config.model_validate(root.value)
    except ValidationError as error:
        report_refused_values(error, source, findings)
    # Validators ask the file system about paths, and a name can be longer than any path or name no one's home.
    except (OSError, RuntimeError, TypeError) as error:
        path = _culprit(root.value, type(error))
        message = source.scrub(f"a value cannot be used: {error}")
        findings.fault("config-invalid-value", message, source.place(path), path)
    return source, None


def _culprit(document: dict[Any, Any], cause: type[Exception]) -> tuple[Any, ...]:
    """The plugin or section whose validation breaks off; the whole document when none does by itself."""
    plugins = document.get("plugins")
    for index, plugin in enumerate(plugins if isinstance(plugins, list) else ()):
        if _breaks_off({"plugins": [plugin]}, cause):
            return ("plugins", index)
    return next(((key,) for key, value in document.items() if _breaks_off({key: value}, cause)), ())


def _breaks_off(document: dict[Any, Any], cause: type[Exception]) -> bool:
    try:
        Config.model_validate(document)
    except cause:
        return True
    except ValueError:
        return False
    return False


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _unreadable(path, "there is no such file", "give the path of a YAML file") from error
    except IsADirectoryError as error:
        raise _unreadable(path, "it is a folder", "give the path of a YAML file in it") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(path, reason[:1].lower() + reason[1:], "give a file that this process may read") from error
    return data


def _unreadable(path: str | os.PathLike[str], reason: str, help: str) -> ConfigFileNotFound:
    file = os.fspath(path)
    message = f"configuration file `{file}` cannot be read: {reason}"
    fault = Fault(code="config-file-not-found", message=message, path="", file=file, line=None, column=None, help=help)
    return ConfigFileNotFound([fault])


def _decode(text: str | bytes, findings: Findings) -> str | None:
    if len(text) > MAX_BYTES:
        findings.fault("config-too-large", f"the configuration is larger than {MAX_BYTES:,} bytes", START)
        return None
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line_start = before.rfind(b"\n") + 1
        place = before.count(b"\n") + 1, len(before[line_start:].decode("utf-8")) + 1
        message = f"byte 0x{text[error.start]:02x} is not UTF-8"
        findings.fault("config-encoding", message, place, (), "save the file as UTF-8")
        return None


def _strict() -> bool:
    # Read when it is needed: the setting may change between two loads, and the models need no settings.
    from cpex.framework.settings import settings

    return bool(settings.strict_config)


def _logged(loaded: LoadedConfig) -> LoadedConfig:
    for warning in loaded.warnings:
        place = f" at {warning.location}" if warning.location else ""
        help = f"; {warning.help}" if warning.help else ""
        logger.warning("Configuration%s: %s [%s]%s", place, warning.message, warning.code, help)
    return loaded


def replace_file(path: FilePath, text: str) -> None:
    """Write beside the file, then put the new one in its place: a crash leaves the old or the new, never a part."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
