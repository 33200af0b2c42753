"""Plugins behind an MCP server, as the host sees them.

Source: docs/reference/external.md, "MCP".
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from cpex.framework.external.mcp.tls_utils import create_ssl_context
from cpex.framework.external.plugin import RemotePlugin
from cpex.framework.external.port import Link
from cpex.framework.external.session import Attempts
from cpex.framework.models.mode import TransportType
from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.models.transport import MCPClientConfig
from cpex.framework.registry import ExternalHookRef
from cpex.framework.settings import get_http_client_settings, get_ssrf_settings

if TYPE_CHECKING:
    from cpex.framework.external.mcp.http import Limits

__all__ = ["ExternalHookRef", "ExternalPlugin"]


class ExternalPlugin(RemotePlugin):
    """A plugin of kind `external` with an `mcp` section."""

    # What release 0.1 calls an answer that is none.
    _CODES: ClassVar[Mapping[str, str]] = {"protocol": "JSON_DECODE_ERROR", "remote": "JSON_DECODE_ERROR"}
    _NEVER_OPENED: ClassVar[str | None] = "Plugin session not initialized"

    @property
    def _mcp(self) -> MCPClientConfig:
        if self._local.mcp is None:
            raise self._failure(
                f"The mcp section must be defined for external plugin {self._local.name}", "external_config"
            )
        return self._local.mcp

    def _make_link(self) -> Link:
        # Each loads what it needs on first use; a host with one kind of plugin server does not pay for the other.
        from cpex.framework.external.mcp.link import McpLink

        mcp = self._mcp
        if mcp.proto is TransportType.STDIO:
            from cpex.framework.external.mcp.child import ChildCommand
            from cpex.framework.external.mcp.stdio import StdioChannel

            return McpLink(StdioChannel(ChildCommand.of(mcp, self._local.name)))
        if mcp.proto is not TransportType.STREAMABLEHTTP:
            text = f"no client speaks {mcp.proto.value}; write STDIO or STREAMABLEHTTP as its proto"
            raise self._failure(f"external plugin {self._local.name}: {text}", "external_config")
        if not mcp.url:
            raise self._failure("STREAMABLEHTTP transport requires url", "external_config")
        from cpex.framework.external.mcp.http import Endpoint, HttpChannel

        endpoint = Endpoint(mcp.url, mcp.uds, self._tls(mcp), get_ssrf_settings().ssrf_protection_enabled)
        return McpLink(HttpChannel(endpoint, _limits()))

    def _tls(self, mcp: MCPClientConfig) -> ssl.SSLContext | None:
        """What is checked of the server: as the plugin's section says, else the environment, else everything."""
        if mcp.uds is not None or not (mcp.url or "").lower().startswith("https:"):
            if mcp.tls is not None:
                # SECURITY: who configured certificates must not talk in the clear.
                text = f"external plugin {self._local.name} has a `tls` section, and its URL is not https; write https"
                raise self._failure(text, "external_tls")
            return None
        config = mcp.tls or MCPClientTLSConfig.from_env()
        if config is None:
            config = MCPClientTLSConfig(verify=not get_http_client_settings().skip_ssl_verify)
        return create_ssl_context(config, self._local.name)

    def _address(self) -> str:
        mcp = self._mcp
        if mcp.proto is TransportType.STDIO:
            return f"`{(mcp.cmd or [mcp.script or '?'])[0]}`"
        return f"{mcp.url} (Unix socket {mcp.uds})" if mcp.uds else mcp.url or "?"

    def _first_attempts(self) -> Attempts:
        # A command that does not start will not start a second later; a server may be just about to listen.
        return Attempts(1 if self._mcp.proto is TransportType.STDIO else 3, float)

    def _later_attempts(self) -> Attempts:
        mcp = self._mcp
        return Attempts(mcp.reconnect_attempts, lambda failures: mcp.reconnect_delay * failures)


def _limits() -> Limits:
    from cpex.framework.external.mcp.http import Limits

    settings = get_http_client_settings()
    # Waiting for a free connection is part of the call, and its deadline is the caller's unless the operator set one.
    pool_s = settings.httpx_pool_timeout if "httpx_pool_timeout" in settings.model_fields_set else None
    return Limits(
        connections=settings.httpx_max_connections,
        kept_alive=settings.httpx_max_keepalive_connections,
        keepalive_s=settings.httpx_keepalive_expiry,
        connect_s=settings.httpx_connect_timeout,
        read_s=settings.httpx_read_timeout,
        write_s=settings.httpx_write_timeout,
        pool_s=pool_s,
    )
