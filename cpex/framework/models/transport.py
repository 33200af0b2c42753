"""How external plugins are reached, and where plugin servers listen.

These models check what can be checked before anything is opened: which settings go together, that files and folders are
there, that a URL is one we are willing to connect to. Opening is the transports' business.

Source: docs/reference/configuration.md, "Plugins in other processes".
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cpex.framework.models.mode import TransportType
from cpex.framework.models.sockets import check_socket_folder, is_shared
from cpex.framework.models.tls import (
    GRPCClientTLSConfig,
    GRPCServerTLSConfig,
    MCPClientTLSConfig,
    MCPServerTLSConfig,
    MCPTransportTLSConfigBase,
    Section,
    given,
)

__all__ = [
    "GRPCClientConfig",
    "GRPCServerConfig",
    "MCPClientConfig",
    "MCPServerConfig",
    "UnixSocketClientConfig",
    "UnixSocketServerConfig",
]

logger = logging.getLogger(__name__)

_SCRIPT_SUFFIXES = frozenset({".py", ".sh"})
_URL_TRANSPORTS = frozenset({TransportType.SSE, TransportType.STREAMABLEHTTP})


def _socket_path(path: str) -> str:
    if not path.strip():
        raise ValueError("uds must be a non-empty string: the path of a Unix socket")
    resolved = Path(path).expanduser().resolve()
    try:
        mode = resolved.parent.stat().st_mode
    except OSError as error:
        raise ValueError(f"uds parent directory does not exist: {resolved.parent}") from error
    if not stat.S_ISDIR(mode):
        raise ValueError(f"uds parent directory does not exist: {resolved.parent} is no directory")
    try:
        check_socket_folder(str(resolved))
    except PermissionError as error:
        raise ValueError(f"uds: {error}") from None
    if is_shared(str(resolved)):
        logger.warning("Unix socket %s lies in a world-writable directory; move it to a private one", resolved)
    return str(resolved)


SocketPath = Annotated[str, AfterValidator(_socket_path)]
"""Path of a Unix socket, `~` expanded and resolved, in a folder that exists."""


def _refuse_tls_on_socket(uds: str | None, tls: object) -> None:
    if uds is not None and tls is not None:
        raise ValueError("TLS configuration is not supported for Unix domain sockets; drop `tls` or `uds`")


def _certificate_must_be(tls: MCPTransportTLSConfigBase | None, prefix: str) -> None:
    # SECURITY: an operator who asked for TLS must not end up serving in the clear.
    if tls is None:
        raise ValueError(
            f"{prefix}_SSL_ENABLED is set, but there is no certificate; "
            f"set {prefix}_SSL_CERTFILE and {prefix}_SSL_KEYFILE"
        )


class MCPServerConfig(Section):
    """Where a plugin server over MCP listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """TCP port."""
    uds: SocketPath | None = None
    """Unix socket to listen on instead of host and port."""
    tls: MCPServerTLSConfig | None = None
    """Certificates; `None` serves in the clear."""

    @model_validator(mode="after")
    def _check_no_tls_on_socket(self) -> Self:
        _refuse_tls_on_socket(self.uds, self.tls)
        return self

    @classmethod
    def from_env(cls) -> Self | None:
        """What `PLUGINS_SERVER_*` say; `None` when none of them is set.

        Raises:
            ValueError: TLS is enabled and no variable says with which certificate.
        """
        from cpex.framework.settings import get_mcp_server_settings

        settings = get_mcp_server_settings()
        tls = MCPServerTLSConfig.from_env() if settings.server_ssl_enabled else None
        if settings.server_ssl_enabled:
            _certificate_must_be(tls, "PLUGINS_SERVER")
        values = given(host=settings.server_host, port=settings.server_port, uds=settings.server_uds, tls=tls)
        return cls(**values) if values else None


class GRPCServerConfig(Section):
    """Where a plugin server over gRPC listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 50051
    """TCP port."""
    uds: SocketPath | None = None
    """Unix socket to listen on instead of host and port."""
    tls: GRPCServerTLSConfig | None = None
    """Certificates; `None` serves in the clear."""

    @model_validator(mode="after")
    def _check_no_tls_on_socket(self) -> Self:
        _refuse_tls_on_socket(self.uds, self.tls)
        return self

    def get_bind_address(self) -> str:
        """`host:port`, or `unix://` and the socket's absolute path."""
        return f"unix://{self.uds}" if self.uds else f"{self.host}:{self.port}"

    @classmethod
    def from_env(cls) -> Self | None:
        """What `PLUGINS_GRPC_SERVER_*` say; `None` when none of them is set.

        Raises:
            ValueError: TLS is enabled and no variable says with which certificate.
        """
        from cpex.framework.settings import get_grpc_server_settings

        settings = get_grpc_server_settings()
        tls = GRPCServerTLSConfig.from_env() if settings.grpc_server_ssl_enabled else None
        if settings.grpc_server_ssl_enabled:
            _certificate_must_be(tls, "PLUGINS_GRPC_SERVER")
        values = given(
            host=settings.grpc_server_host, port=settings.grpc_server_port, uds=settings.grpc_server_uds, tls=tls
        )
        return cls(**values) if values else None


class MCPClientConfig(Section):
    """How an external plugin over MCP is reached: by a command to start, or at a URL."""

    proto: TransportType
    """`STDIO` or `STREAMABLEHTTP`. `SSE` is known, and refused where a plugin is `external`: nothing speaks it."""
    url: str | None = None
    """Where the server is. A private address is refused unless SSRF protection is switched off."""
    script: str | None = None
    """A `.py`, `.sh` or executable file to run; relative ones are looked for when the plugin starts."""
    cmd: list[str] | None = None
    """The command to run, word by word."""
    env: dict[str, str] | None = None
    """Variables for the command, beside the few that every child gets."""
    inherit_env: bool = False
    """Whether the command gets all variables of this process, keys and passwords included."""
    cwd: str | None = None
    """Folder to run the command in; kept resolved."""
    uds: SocketPath | None = None
    """Unix socket that HTTP is spoken over."""
    tls: MCPClientTLSConfig | None = None
    """Certificates and checks."""
    reconnect_attempts: int = Field(default=3, ge=0)
    """How often a lost connection is tried again."""
    reconnect_delay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Seconds before the first retry; the n-th waits n times as long."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        from cpex.framework.validators import validate_plugin_url

        return validate_plugin_url(value) if value else value

    @field_validator("script")
    @classmethod
    def _check_script(cls, value: str | None) -> str | None:
        if not value:
            return value
        path = Path(value).expanduser()
        if path.is_absolute():
            if not path.is_file():
                raise ValueError(f"script {path} does not exist")
            if path.suffix not in _SCRIPT_SUFFIXES and not os.access(path, os.X_OK):
                raise ValueError(f"script {path} must be a .py or .sh file, or executable")
        return str(path)

    @field_validator("cmd")
    @classmethod
    def _check_cmd(cls, value: list[str] | None) -> list[str] | None:
        if value is None:
            return None
        if not value:
            raise ValueError("cmd must be a non-empty list")
        if any(not word.strip() for word in value):
            raise ValueError("each word of cmd must be a non-empty string")
        return value

    @field_validator("env")
    @classmethod
    def _check_env(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is None:
            return None
        if not value:
            raise ValueError("env must be a non-empty mapping")
        if any(not name.strip() for name in value):
            raise ValueError("each name in env must be a non-empty string")
        return value

    @field_validator("cwd")
    @classmethod
    def _check_cwd(cls, value: str | None) -> str | None:
        if not value:
            return value
        path = Path(value).expanduser().resolve()
        if not path.is_dir():
            raise ValueError(f"cwd {value} does not exist or is not a directory")
        return str(path)

    @model_validator(mode="after")
    def _check_settings_fit_transport(self) -> Self:
        stdio = self.proto is TransportType.STDIO
        if stdio and self.url:
            raise ValueError("url is only valid for HTTP and SSE transports, and proto is STDIO")
        if not stdio and (self.script or self.cmd or self.env or self.cwd):
            raise ValueError(
                f"script, cmd, env and cwd are only valid for STDIO transport, and proto is {self.proto.value}"
            )
        if self.uds is not None and self.proto is not TransportType.STREAMABLEHTTP:
            raise ValueError(f"uds is only valid for STREAMABLEHTTP transport, and proto is {self.proto.value}")
        _refuse_tls_on_socket(self.uds, self.tls)
        if self.tls is not None and self.proto not in _URL_TRANSPORTS:
            raise ValueError(
                f"TLS configuration is only valid for HTTP and SSE transports, and proto is {self.proto.value}"
            )
        return self


class GRPCClientConfig(Section):
    """How an external plugin over gRPC is reached: at `host:port` or over a Unix socket."""

    target: str | None = None
    """`host:port`. A private address is refused at the start unless SSRF protection is switched off."""
    uds: SocketPath | None = None
    """Unix socket, instead of a target."""
    tls: GRPCClientTLSConfig | None = None
    """Certificates and checks; `None` connects in the clear."""

    @field_validator("target")
    @classmethod
    def _check_target(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value:
            raise ValueError("gRPC target cannot be empty")
        if ":" not in value:
            raise ValueError(f"gRPC target must be in host:port format; got {value!r}")
        return value

    @model_validator(mode="after")
    def _check_one_address(self) -> Self:
        if not self.target and not self.uds:
            raise ValueError("gRPC client must have either 'target' or 'uds'")
        if self.target and self.uds:
            raise ValueError("gRPC client cannot have both 'target' and 'uds'")
        _refuse_tls_on_socket(self.uds, self.tls)
        return self

    def get_target(self) -> str:
        """`host:port`, or `unix://` and the socket's absolute path."""
        return f"unix://{self.uds}" if self.uds else self.target or ""


class UnixSocketClientConfig(Section):
    """How an external plugin over a plain Unix socket is reached."""

    path: str
    """The socket; absolute."""
    reconnect_attempts: int = Field(default=3, ge=0)
    """How often a lost connection is tried again."""
    reconnect_delay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Seconds before the first retry; the n-th waits n times as long."""
    timeout: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds for one answer."""

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if not value:
            raise ValueError("Unix socket path cannot be empty")
        if not value.startswith("/"):
            raise ValueError(f"Unix socket path must be absolute; got {value!r}")
        return value


class UnixSocketServerConfig(Section):
    """Where a plugin server over a plain Unix socket listens."""

    path: str = "/tmp/mcpgateway-plugins.sock"
    """The socket."""

    @classmethod
    def from_env(cls) -> Self | None:
        """What `UNIX_SOCKET_PATH`, or `PLUGINS_UNIX_SOCKET_PATH`, says; `None` when neither is set."""
        from cpex.framework.settings import get_transport_settings

        path = get_transport_settings().unix_socket_path
        return cls(path=path) if path else None
