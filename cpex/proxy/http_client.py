"""A server that is reached over streamable HTTP, as a connection.

The SDK's client transport speaks the protocol; below it stands a pool of ours, which connects to judged addresses only
and turns a failure into the answer of the one request that it concerns: the transport would end for all of them.

Source: docs/proxy.md, "A server at an address".
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpcore2
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import jsonrpc_message_adapter

from cpex.framework.external.mcp.http import checking_backend
from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES
from cpex.framework.external.mcp.tls_utils import create_ssl_context
from cpex.framework.external.port import LinkError
from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.settings import get_http_client_settings, get_ssrf_settings
from cpex.proxy.errors import CONNECTION_CLOSED
from cpex.proxy.port import Connection, Message, RequestId

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

__all__ = ["connected_url"]

_VERSION = "mcp-protocol-version"
_CONNECT_S, _FAREWELL_S = 10.0, 2.0
_CONNECTIONS = 200
"""Of one client's session: every request that is under way takes one."""


@asynccontextmanager
async def connected_url(url: str, headers: Mapping[str, str]) -> AsyncIterator[Connection]:
    """A session of its own with a server; ended there as well when the block is left."""
    timeouts = httpx2.Timeout(None, connect=_CONNECT_S)
    client = httpx2.AsyncClient(transport=_Transport(url), headers=dict(headers), timeout=timeouts)
    async with client, streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams:
        yield _HttpConnection(streams)


class _HttpConnection:
    def __init__(self, streams: TransportStreams) -> None:
        self._incoming, self._outgoing = streams
        self._handshake: RequestId | None = None
        self._version: str | None = None

    async def receive(self) -> Message | None:
        """The next message of any of the server's streams."""
        while True:
            try:
                item = await self._incoming.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                return None
            # An exception stands for an event that is no message.
            if isinstance(item, SessionMessage):
                message = item.message.model_dump(mode="json", by_alias=True, exclude_unset=True)
                self._note_version(message)
                return message

    def _note_version(self, message: Message) -> None:
        if self._handshake is not None and message.get("id") == self._handshake and "method" not in message:
            self._handshake = None
            version = (message.get("result") or {}).get("protocolVersion")
            self._version = version if isinstance(version, str) else None

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Post it; a request's answer, or why there is none, is received later."""
        if message.get("method") == "initialize":
            self._handshake = message["id"]
        metadata = ClientMessageMetadata(headers={_VERSION: self._version}) if self._version else None
        try:
            await self._outgoing.send(SessionMessage(jsonrpc_message_adapter.validate_python(message), metadata))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise LinkError("the connection is closed", code="lost", sent=False) from error

    async def forget(self, id: RequestId) -> None:
        """A server of this side sends no requests that must be ended."""

    def reason(self) -> str:
        """HTTP has no connection that could end."""
        return ""


def _tls() -> ssl.SSLContext:
    config = MCPClientTLSConfig.from_env() or MCPClientTLSConfig(verify=not get_http_client_settings().skip_ssl_verify)
    return create_ssl_context(config, "proxy")


class _Transport(httpx2.AsyncBaseTransport):
    """A pool of connections, for one client and one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls() if url.lower().startswith("https:") else None,
            max_connections=_CONNECTIONS,
            network_backend=checking_backend(public_only=get_ssrf_settings().ssrf_protection_enabled),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Its failure is a response with a JSON-RPC error."""
        url = request.url
        extensions = dict(request.extensions)
        if request.method == "DELETE":
            # The farewell: a server that hangs must not keep this process.
            extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), _FAREWELL_S)
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        try:
            response = await self._pool.handle_async_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=extensions,
                )
            )
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
            return self._failed(error)
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Stream(response), extensions=response.extensions
        )

    def _failed(self, error: Exception) -> httpx2.Response:
        text = f"cannot reach {self._url}: {str(error) or type(error).__name__}"
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": None, "error": {"code": CONNECTION_CLOSED, "message": text}}
        return httpx2.Response(502, headers={"content-type": "application/json"}, content=json.dumps(body).encode())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Stream(httpx2.AsyncByteStream):
    """What a response holds. One that breaks off ends: the transport tells the request that waits for more."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as error:
            raise httpx2.ReadError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._response.aclose()
