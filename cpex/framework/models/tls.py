"""TLS of both ends of each transport: which certificates, which authorities, how strict.

Source: docs/reference/configuration.md, "Plugins in other processes".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "GRPCClientTLSConfig",
    "GRPCServerTLSConfig",
    "MCPClientTLSConfig",
    "MCPServerTLSConfig",
    "MCPTransportTLSConfigBase",
]

_CLIENT_AUTH_WORDS = ("none", "optional", "require")


def _existing_file(path: str | None) -> str | None:
    if not path:
        return path
    expanded = Path(path).expanduser()
    if not expanded.is_file():
        raise ValueError(f"TLS file path does not exist: {path}")
    return str(expanded)


PemFile = Annotated[str | None, AfterValidator(_existing_file)]
"""Path of a PEM file, `~` expanded."""


class Section(BaseModel):
    """Base of the sections about transports."""

    # Schemas are built when a section is first used; most programs use none.
    model_config = ConfigDict(defer_build=True)


def given(**values: Any) -> dict[str, Any]:
    """The values that are set: neither `None` nor empty text."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


class MCPTransportTLSConfigBase(Section):
    """Certificate and key of one end, and the authorities whose certificates it trusts."""

    certfile: PemFile = None
    """This end's certificate, a PEM file."""
    keyfile: PemFile = None
    """Its key, a PEM file; needs `certfile`."""
    ca_bundle: PemFile = None
    """The authorities whose certificates are trusted, a PEM file."""
    keyfile_password: str | None = Field(default=None, repr=False)
    """Opens the key."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if self.keyfile and not self.certfile:
            raise ValueError("keyfile requires certfile to be set as well")
        return self

    @classmethod
    def _from_settings(cls, values: dict[str, Any]) -> Self | None:
        """An instance from the settings that are set; `None` when none is."""
        found = given(**values)
        password = found.get("keyfile_password")
        if password is not None:
            found["keyfile_password"] = password.get_secret_value()
        return cls(**found) if found else None


class MCPClientTLSConfig(MCPTransportTLSConfigBase):
    """TLS towards an external plugin over MCP."""

    verify: bool = True
    """Whether the server's certificate is checked."""
    check_hostname: bool = True
    """Whether it must also be made out to the server's name."""

    @classmethod
    def from_env(cls) -> Self | None:
        """What `PLUGINS_CLIENT_MTLS_*` say; `None` when none of them is set."""
        from cpex.framework.settings import get_client_mtls_settings

        settings = get_client_mtls_settings()
        return cls._from_settings(
            {
                "certfile": settings.client_mtls_certfile,
                "keyfile": settings.client_mtls_keyfile,
                "ca_bundle": settings.client_mtls_ca_bundle,
                "keyfile_password": settings.client_mtls_keyfile_password,
                "verify": settings.client_mtls_verify,
                "check_hostname": settings.client_mtls_check_hostname,
            }
        )


class MCPServerTLSConfig(MCPTransportTLSConfigBase):
    """TLS of a plugin server over MCP."""

    ssl_cert_reqs: int = 2
    """Client certificate: 0 not asked for, 1 optional, 2 required."""

    @classmethod
    def from_env(cls) -> Self | None:
        """What `PLUGINS_SERVER_SSL_*` say; `None` when none of them is set."""
        from cpex.framework.settings import get_mcp_server_settings

        settings = get_mcp_server_settings()
        return cls._from_settings(
            {
                "certfile": settings.server_ssl_certfile,
                "keyfile": settings.server_ssl_keyfile,
                "ca_bundle": settings.server_ssl_ca_certs,
                "keyfile_password": settings.server_ssl_keyfile_password,
                "ssl_cert_reqs": settings.server_ssl_cert_reqs,
            }
        )


class GRPCClientTLSConfig(MCPTransportTLSConfigBase):
    """TLS towards an external plugin over gRPC."""

    verify: bool = True
    """Whether the server's certificate is checked."""

    @classmethod
    def from_env(cls) -> Self | None:
        """What `PLUGINS_GRPC_CLIENT_MTLS_*` say; `None` when none of them is set."""
        from cpex.framework.settings import get_grpc_client_mtls_settings

        settings = get_grpc_client_mtls_settings()
        return cls._from_settings(
            {
                "certfile": settings.grpc_client_mtls_certfile,
                "keyfile": settings.grpc_client_mtls_keyfile,
                "ca_bundle": settings.grpc_client_mtls_ca_bundle,
                "keyfile_password": settings.grpc_client_mtls_keyfile_password,
                "verify": settings.grpc_client_mtls_verify,
            }
        )


class GRPCServerTLSConfig(MCPTransportTLSConfigBase):
    """TLS of a plugin server over gRPC."""

    client_auth: str = "require"
    """Client certificate: `none`, `optional` or `require`; any case is read, lower case is kept."""

    @field_validator("client_auth")
    @classmethod
    def _check_client_auth(cls, value: str) -> str:
        word = value.lower()
        if word not in _CLIENT_AUTH_WORDS:
            raise ValueError(f"client_auth must be one of {', '.join(_CLIENT_AUTH_WORDS)}; got {value!r}")
        return word

    @classmethod
    def from_env(cls) -> Self | None:
        """What `PLUGINS_GRPC_SERVER_SSL_*` say; `None` when none of them is set."""
        from cpex.framework.settings import get_grpc_server_settings

        settings = get_grpc_server_settings()
        return cls._from_settings(
            {
                "certfile": settings.grpc_server_ssl_certfile,
                "keyfile": settings.grpc_server_ssl_keyfile,
                "ca_bundle": settings.grpc_server_ssl_ca_certs,
                "keyfile_password": settings.grpc_server_ssl_keyfile_password,
                "client_auth": settings.grpc_server_ssl_client_auth,
            }
        )
