"""Certificates of both ends of gRPC.

What gRPC for Python cannot do is refused rather than done halfway: it always verifies a server, and it either demands a
client's certificate or does not ask for one.

Source: docs/reference/external.md, "TLS".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from cpex.framework.errors import PluginError
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.models.tls import GRPCClientTLSConfig, GRPCServerTLSConfig, MCPTransportTLSConfigBase

__all__ = [
    "create_client_credentials",
    "create_insecure_channel",
    "create_secure_channel",
    "create_server_credentials",
]

logger = logging.getLogger(__name__)

Options = Sequence[tuple[str, Any]]


def create_client_credentials(tls_config: GRPCClientTLSConfig, plugin_name: str = "unknown") -> grpc.ChannelCredentials:
    """What a host shows a plugin server, and whom it trusts.

    Raises:
        PluginError: A file cannot be read, the key cannot be opened, or `verify` is switched off.
    """
    try:
        if not tls_config.verify:
            raise ValueError(
                "gRPC always verifies its server, so `verify: false` cannot be honoured; name the server's authority "
                "in `ca_bundle`"
            )
        key, certificates = _pair(tls_config)
        return grpc.ssl_channel_credentials(_authorities(tls_config), key, certificates)
    # Whatever reading keys and certificates raises is the operator's to mend.
    except Exception as error:
        text = f"Failed to configure TLS for plugin {plugin_name}: {error}"
        raise PluginError(PluginErrorModel(message=text, plugin_name=plugin_name, code="external_tls")) from error


def create_server_credentials(tls_config: GRPCServerTLSConfig) -> grpc.ServerCredentials:
    """What a plugin server shows its hosts, and which of them it lets in.

    Raises:
        ValueError: Certificate or key are missing, cannot be opened, or `client_auth` is `optional`.
        OSError: A file cannot be read.
    """
    key, certificates = _pair(tls_config)
    if key is None or certificates is None:
        raise ValueError("TLS of a gRPC server: certfile and keyfile are both required")
    if tls_config.client_auth == "optional":
        raise ValueError(
            "TLS of a gRPC server: gRPC for Python cannot ask for a client's certificate without demanding it; set "
            "client_auth to `require` or `none`"
        )
    authorities = _authorities(tls_config)
    required = tls_config.client_auth == "require"
    if required and authorities is None:
        raise ValueError(
            "TLS of a gRPC server: client_auth is `require`, but there is no ca_bundle to judge clients by; name one, "
            "or set client_auth to `none`"
        )
    return grpc.ssl_server_credentials([(key, certificates)], authorities, required)


def create_insecure_channel(target: str, options: Options = ()) -> grpc.aio.Channel:
    """A channel in the clear."""
    return grpc.aio.insecure_channel(target, options=options)


def create_secure_channel(
    target: str, tls_config: GRPCClientTLSConfig, plugin_name: str = "unknown", options: Options = ()
) -> grpc.aio.Channel:
    """A channel over TLS.

    Raises:
        PluginError: The certificates cannot be used.
    """
    return grpc.aio.secure_channel(target, create_client_credentials(tls_config, plugin_name), options=options)


def _authorities(tls: MCPTransportTLSConfigBase) -> bytes | None:
    return Path(tls.ca_bundle).read_bytes() if tls.ca_bundle else None


def _pair(tls: MCPTransportTLSConfigBase) -> tuple[bytes | None, bytes | None]:
    """The key, opened, and the certificates; `None` for both when neither is configured."""
    if bool(tls.certfile) is not bool(tls.keyfile):
        raise ValueError("certfile and keyfile are both required, and one of them is missing")
    if not tls.certfile or not tls.keyfile:
        return None, None
    key = Path(tls.keyfile).read_bytes()
    if b"ENCRYPTED" in key:
        key = _opened(key, tls.keyfile_password)
    return key, Path(tls.certfile).read_bytes()


def _opened(key: bytes, password: str | None) -> bytes:
    """An encrypted key in the clear; gRPC takes no other."""
    if not password:
        raise ValueError("the key is encrypted; give its keyfile_password")
    try:
        from cryptography.hazmat.primitives import serialization
    except ModuleNotFoundError as error:
        raise ValueError("the key is encrypted; install `cpex[grpc]`, whose `cryptography` opens it") from error
    opened = serialization.load_pem_private_key(key, password.encode())
    clear: bytes = opened.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return clear
