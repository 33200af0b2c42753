"""Settings of the process: environment variables, then a `.env` file, then defaults.

Variables start with `PLUGINS_`, in any case; the `.env` of the working directory is looked at when settings are first
read. Each getter reads a narrow group once and keeps it, so a malformed variable of one group does not stop a program
that needs another. Nothing is read when this module is imported, and the engine never reads settings: composition roots
and `from_env` constructors do, and hand values on.

Source: docs/reference/settings.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo

__all__ = [
    "LazySettingsWrapper",
    "PluginsCatalogSettings",
    "PluginsCliSettings",
    "PluginsClientMtlsSettings",
    "PluginsConfigPathSettings",
    "PluginsEnabledSettings",
    "PluginsGrpcClientMtlsSettings",
    "PluginsGrpcServerSettings",
    "PluginsHttpClientSettings",
    "PluginsLoaderSettings",
    "PluginsLogSettings",
    "PluginsMcpServerSettings",
    "PluginsPolicySettings",
    "PluginsRegistrySettings",
    "PluginsSettings",
    "PluginsSsrfSettings",
    "PluginsStartupSettings",
    "PluginsTransportSettings",
    "get_catalog_settings",
    "get_cli_settings",
    "get_client_mtls_settings",
    "get_config_path_settings",
    "get_enabled_settings",
    "get_grpc_client_mtls_settings",
    "get_grpc_server_settings",
    "get_http_client_settings",
    "get_loader_settings",
    "get_log_settings",
    "get_mcp_server_settings",
    "get_policy_settings",
    "get_registry_settings",
    "get_settings",
    "get_ssrf_settings",
    "get_startup_settings",
    "get_transport_settings",
    "settings",
]

ENV_FILE = ".env"
_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})


def _variable(field: str) -> str:
    return f"PLUGINS_{field.upper()}"


class _EnvSettings(BaseModel):
    """Base of the groups: constructing one reads the environment; arguments given by name win over it.

    A variable that does not fit its type raises pydantic's `ValidationError`, which names the variable. Blank text
    counts as unset, except where the type is text or the policy word.
    """

    # Schemas are built when a group is first read: most programs read two or three of them.
    model_config = ConfigDict(
        defer_build=True,
        extra="ignore",
        populate_by_name=True,
        alias_generator=AliasGenerator(validation_alias=_variable),
    )

    OTHER_NAMES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """`{field: variables}` for fields read from other variables than the regular one; the first one set wins."""

    def __init__(self, _env_file: str | Path | None = ENV_FILE, **values: Any) -> None:
        found = _read_environment(type(self), _env_file)
        super().__init__(**{name: text for name, text in found.items() if _field_of(name) not in values}, **values)


def _field_of(variable: str) -> str:
    return variable.removeprefix("PLUGINS_").lower()


def _read_environment(cls: type[_EnvSettings], env_file: str | Path | None) -> dict[str, str]:
    """The variables of a group that are set, under their regular names."""
    sources = [_folded(os.environ)]
    if env_file is not None and Path(env_file).is_file():
        # Only programs that have such a file pay for the parser.
        from dotenv import dotenv_values

        sources.append(_folded(dotenv_values(env_file)))
    found: dict[str, str] = {}
    for field, info in cls.model_fields.items():
        names = cls.OTHER_NAMES.get(field, (_variable(field),))
        texts = (source[name.lower()] for source in sources for name in names if name.lower() in source)
        text = next(texts, None)
        if text is not None and not (_blank_means_unset(info) and not text.strip()):
            found[_variable(field)] = text
    return found


def _folded(variables: Mapping[str, str | None]) -> dict[str, str]:
    folded = {name.lower(): text for name, text in variables.items() if text is not None}
    # Where two spellings differ in case only, the regular one counts.
    folded |= {name.lower(): text for name, text in variables.items() if text is not None and name.isupper()}
    return folded


def _blank_means_unset(info: FieldInfo) -> bool:
    # A blank policy word stays an error: what an operator meant by it cannot be guessed, and guessing may open a door.
    kinds = {type(None), bool, int, float}
    return bool(kinds & {info.annotation, *get_args(info.annotation)}) and info.annotation != (str | None)


class PluginsEnabledSettings(_EnvSettings):
    """Whether the framework is used at all."""

    enabled: bool = False
    """Whether `get_plugin_manager()` makes a manager. The words `1`, `true`, `yes` and `on` count."""


class PluginsStartupSettings(_EnvSettings):
    """What a manager is started with."""

    config_file: str = "plugins/config.yaml"
    """Path of the configuration; empty text means an empty configuration."""
    plugin_timeout: int = Field(default=30, gt=0)
    """Seconds that one plugin may take per call, unless its own configuration says otherwise."""
    fail_on_plugin_error: bool = False
    """Whether a plugin that cannot be started stops the start-up. Unset, each plugin's `on_error` decides."""
    execution_pool: int = Field(default=10, ge=0)
    """How many plugins of one phase run at a time; 0 means any number."""

    @property
    def fail_on_plugin_error_explicit(self) -> bool:
        """Whether the operator has set `fail_on_plugin_error`, to either value."""
        return "fail_on_plugin_error" in self.model_fields_set


class PluginsLoaderSettings(_EnvSettings):
    """How configurations are read."""

    strict_config: bool = True
    """Whether unknown keys, duplicate keys and undefined variables are errors; otherwise they are warnings."""


class PluginsConfigPathSettings(_EnvSettings):
    """Where a plugin server finds its configuration."""

    config_path: str | None = None
    """Path of the configuration file."""


class PluginsPolicySettings(_EnvSettings):
    """What applies to hooks without a policy of their own."""

    default_hook_policy: Literal["allow", "deny"] = "allow"
    """Whether plugins may write every field of such a hook's payload, or none."""


class PluginsSsrfSettings(_EnvSettings):
    """Which addresses the framework may be told to connect to."""

    ssrf_protection_enabled: bool = True
    """Refuse URLs that name a private, loopback or link-local IPv4 address."""


class PluginsTransportSettings(_EnvSettings):
    """What a plugin server listens on. The bare `UNIX_SOCKET_PATH` wins over the prefixed one."""

    OTHER_NAMES = {"unix_socket_path": ("UNIX_SOCKET_PATH", "PLUGINS_UNIX_SOCKET_PATH")}

    transport: str | None = None
    """How the server is spoken to, such as `stdio` or `http`."""
    unix_socket_path: str | None = None


class PluginsHttpClientSettings(_EnvSettings):
    """The HTTP client that external plugins are reached with. Times are in seconds."""

    skip_ssl_verify: bool = False
    httpx_max_connections: int = 200
    httpx_max_keepalive_connections: int = 100
    httpx_keepalive_expiry: float = 30.0
    httpx_connect_timeout: float = 5.0
    httpx_read_timeout: float = 120.0
    httpx_write_timeout: float = 30.0
    httpx_pool_timeout: float = 10.0


class PluginsCliSettings(_EnvSettings):
    """The look of the command line."""

    cli_completion: bool = False
    cli_markup_mode: Literal["markdown", "rich", "disabled"] | None = None


class PluginsLogSettings(_EnvSettings):
    """What our own programs log."""

    log_level: str = "INFO"
    """Least level that plugin servers log."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or a JSON object a line for machines; of plugin servers and the command line."""

    @field_validator("log_level")
    @classmethod
    def _check_level(cls, level: str) -> str:
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return level


class PluginsClientMtlsSettings(_EnvSettings):
    """TLS towards external plugins over MCP; paths are paths of PEM files."""

    client_mtls_certfile: str | None = None
    client_mtls_keyfile: str | None = None
    client_mtls_ca_bundle: str | None = None
    client_mtls_keyfile_password: SecretStr | None = None
    client_mtls_verify: bool | None = None
    client_mtls_check_hostname: bool | None = None


class PluginsMcpServerSettings(_EnvSettings):
    """Where a plugin server over MCP listens, and its TLS."""

    server_host: str | None = None
    server_port: int | None = None
    server_uds: str | None = None
    server_ssl_enabled: bool | None = None
    server_ssl_keyfile: str | None = None
    server_ssl_certfile: str | None = None
    server_ssl_ca_certs: str | None = None
    server_ssl_keyfile_password: SecretStr | None = None
    server_ssl_cert_reqs: int | None = None
    """0: no client certificate, 1: optional, 2: required."""


class PluginsGrpcClientMtlsSettings(_EnvSettings):
    """TLS towards external plugins over gRPC."""

    grpc_client_mtls_certfile: str | None = None
    grpc_client_mtls_keyfile: str | None = None
    grpc_client_mtls_ca_bundle: str | None = None
    grpc_client_mtls_keyfile_password: SecretStr | None = None
    grpc_client_mtls_verify: bool | None = None


class PluginsGrpcServerSettings(_EnvSettings):
    """Where a plugin server over gRPC listens, and its TLS."""

    grpc_server_host: str | None = None
    grpc_server_port: int | None = None
    grpc_server_uds: str | None = None
    grpc_server_ssl_enabled: bool | None = None
    grpc_server_ssl_keyfile: str | None = None
    grpc_server_ssl_certfile: str | None = None
    grpc_server_ssl_ca_certs: str | None = None
    grpc_server_ssl_keyfile_password: SecretStr | None = None
    grpc_server_ssl_client_auth: str | None = None


class PluginsRegistrySettings(_EnvSettings):
    """Where the record of installed plugins is kept."""

    OTHER_NAMES = {"plugin_registry_file": ("PLUGIN_REGISTRY_FILE",)}

    plugin_registry_file: str = "data"
    """A folder, despite the name; the record is `installed-plugins.json` in it."""


class PluginsCatalogSettings(_EnvSettings):
    """Where plugins come from, and where `cpex plugin` puts them."""

    folder: str = "plugins"
    """Folder below which plugins with an environment of their own are installed."""
    catalog_folder: str = "plugin-catalog"
    """Folder with the manifests of plugins that can be installed."""
    registry_folder: str = "data"
    """Read by nothing; `PLUGIN_REGISTRY_FILE` names the folder."""
    verify_package_integrity: bool = True
    """Whether what is downloaded from the package index is compared with the index's own hash."""
    strict_integrity_mode: bool = False
    """Whether what cannot be compared is refused, too."""
    test_index_url: SecretStr | None = None
    """Address of the test index, `…/simple`; without it the one that pip knows. A secret: it may hold a password."""
    github_token: SecretStr | None = None
    """Lets `cpex plugin refresh` search repositories."""
    github_api: str = "api.github.com"
    """Host of that search."""
    repo_urls: str = "https://github.com/ibm/cpex-plugins"
    """Repositories with many plugins, by commas."""


class PluginsSettings(
    PluginsEnabledSettings,
    PluginsStartupSettings,
    PluginsLoaderSettings,
    PluginsConfigPathSettings,
    PluginsPolicySettings,
    PluginsSsrfSettings,
    PluginsTransportSettings,
    PluginsHttpClientSettings,
    PluginsCliSettings,
    PluginsLogSettings,
    PluginsClientMtlsSettings,
    PluginsMcpServerSettings,
    PluginsGrpcClientMtlsSettings,
    PluginsGrpcServerSettings,
    PluginsCatalogSettings,
):
    """Every setting. Here the prefixed `PLUGINS_UNIX_SOCKET_PATH` wins over the bare one."""

    OTHER_NAMES = {"unix_socket_path": ("PLUGINS_UNIX_SOCKET_PATH", "UNIX_SOCKET_PATH")}


@lru_cache(maxsize=1)
def get_settings() -> PluginsSettings:
    """Every setting, read once.

    Raises:
        pydantic.ValidationError: A variable, of whatever group, does not fit its type.
    """
    return PluginsSettings()


@lru_cache(maxsize=1)
def get_enabled_settings() -> PluginsEnabledSettings:
    """Whether the framework is used, read once."""
    return PluginsEnabledSettings()


@lru_cache(maxsize=1)
def get_startup_settings() -> PluginsStartupSettings:
    """What a manager is started with, read once."""
    return PluginsStartupSettings()


@lru_cache(maxsize=1)
def get_loader_settings() -> PluginsLoaderSettings:
    """How configurations are read, read once."""
    return PluginsLoaderSettings()


@lru_cache(maxsize=1)
def get_config_path_settings() -> PluginsConfigPathSettings:
    """A plugin server's configuration path, read once."""
    return PluginsConfigPathSettings()


@lru_cache(maxsize=1)
def get_policy_settings() -> PluginsPolicySettings:
    """The default policy, read once."""
    return PluginsPolicySettings()


@lru_cache(maxsize=1)
def get_ssrf_settings() -> PluginsSsrfSettings:
    """Which addresses may be connected to, read once."""
    return PluginsSsrfSettings()


@lru_cache(maxsize=1)
def get_transport_settings() -> PluginsTransportSettings:
    """What a plugin server listens on, read once."""
    return PluginsTransportSettings()


@lru_cache(maxsize=1)
def get_http_client_settings() -> PluginsHttpClientSettings:
    """The HTTP client's limits, read once."""
    return PluginsHttpClientSettings()


@lru_cache(maxsize=1)
def get_cli_settings() -> PluginsCliSettings:
    """The look of the command line, read once."""
    return PluginsCliSettings()


@lru_cache(maxsize=1)
def get_log_settings() -> PluginsLogSettings:
    """What our own programs log, read once."""
    return PluginsLogSettings()


@lru_cache(maxsize=1)
def get_client_mtls_settings() -> PluginsClientMtlsSettings:
    """TLS towards plugins over MCP, read once."""
    return PluginsClientMtlsSettings()


@lru_cache(maxsize=1)
def get_mcp_server_settings() -> PluginsMcpServerSettings:
    """A plugin server over MCP, read once."""
    return PluginsMcpServerSettings()


@lru_cache(maxsize=1)
def get_grpc_client_mtls_settings() -> PluginsGrpcClientMtlsSettings:
    """TLS towards plugins over gRPC, read once."""
    return PluginsGrpcClientMtlsSettings()


@lru_cache(maxsize=1)
def get_grpc_server_settings() -> PluginsGrpcServerSettings:
    """A plugin server over gRPC, read once."""
    return PluginsGrpcServerSettings()


@lru_cache(maxsize=1)
def get_registry_settings() -> PluginsRegistrySettings:
    """Where the record of installed plugins is kept, read once."""
    return PluginsRegistrySettings()


@lru_cache(maxsize=1)
def get_catalog_settings() -> PluginsCatalogSettings:
    """Where plugins come from, read once."""
    return PluginsCatalogSettings()


_GETTERS = (
    get_settings,
    get_enabled_settings,
    get_startup_settings,
    get_loader_settings,
    get_config_path_settings,
    get_policy_settings,
    get_ssrf_settings,
    get_transport_settings,
    get_http_client_settings,
    get_cli_settings,
    get_log_settings,
    get_client_mtls_settings,
    get_mcp_server_settings,
    get_grpc_client_mtls_settings,
    get_grpc_server_settings,
    get_registry_settings,
    get_catalog_settings,
)

_NARROW = {
    "config_file": get_startup_settings,
    "plugin_timeout": get_startup_settings,
    "fail_on_plugin_error": get_startup_settings,
    "fail_on_plugin_error_explicit": get_startup_settings,
    "execution_pool": get_startup_settings,
    "strict_config": get_loader_settings,
    "config_path": get_config_path_settings,
    "default_hook_policy": get_policy_settings,
    "ssrf_protection_enabled": get_ssrf_settings,
    "transport": get_transport_settings,
    "unix_socket_path": get_transport_settings,
    "cli_completion": get_cli_settings,
    "cli_markup_mode": get_cli_settings,
    "log_level": get_log_settings,
    "log_format": get_log_settings,
}
"""Settings that `LazySettingsWrapper` reads from a narrow group; all others come from the full one."""


class LazySettingsWrapper:
    """All settings as attributes, each read when it is first asked for.

    An unknown name raises `AttributeError`; a malformed variable raises pydantic's `ValidationError` when a setting of
    its group is asked for.
    """

    @property
    def enabled(self) -> bool:
        """Whether the framework is used; the process environment is looked at every time."""
        text = os.environ.get("PLUGINS_ENABLED")
        return get_enabled_settings().enabled if text is None else text.strip().lower() in _TRUE_WORDS

    def __getattr__(self, name: str) -> Any:
        getter = _NARROW.get(name)
        return getattr(getter() if getter is not None else get_settings(), name)

    def cache_clear(self) -> None:
        """Forget everything that was read."""
        for getter in _GETTERS:
            getter.cache_clear()


settings = LazySettingsWrapper()
"""The settings of this process."""
