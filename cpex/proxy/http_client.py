"""A server that is reached over streamable HTTP, as a connection.

The SDK's client transport speaks the protocol; below it stands a pool of ours, which connects to judged addresses only
and turns a failure into the answer of the one request that it concerns: the transport would end for all of them.

Source: docs/proxy.md, "A server at an address".
"""

from __future__ import annotations

import asyncio
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
from pydantic import ValidationError

from cpex.framework.errors import PluginError
from cpex.framework.external.addresses import AddressRefused
from cpex.framework.external.mcp.http import checking_backend
from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES, parsed
from cpex.framework.external.mcp.tls_utils import create_ssl_context
from cpex.framework.external.port import LinkError
from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.settings import get_http_client_settings, get_ssrf_settings
from cpex.proxy.eras import envelope
from cpex.proxy.errors import CONNECTION_CLOSED, METHOD_NOT_FOUND
from cpex.proxy.http_headers import RepeatedArguments
from cpex.proxy.port import Connection, Message, RequestId, whole

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

__all__ = ["connected_url", "tls_context"]

_VERSION, _SESSION = "mcp-protocol-version", "mcp-session-id"
_CONNECT_S, _FAREWELL_S, _TOLD_S = 10.0, 2.0, 10.0
_BOUNDED = "cpex-bounded"
"""Marks a POST that nobody waits for; never sent."""
_CONNECTIONS = 200
"""Of one client's session: every request that is under way takes one."""
_MAX_REFUSAL_BYTES = 64 * 1024


@asynccontextmanager
async def connected_url(url: str, headers: Mapping[str, str]) -> AsyncIterator[Connection]:
    """A session of its own with a server; ended there as well when the block is left."""
    timeouts = httpx2.Timeout(None, connect=_CONNECT_S)
    transport = _Transport(url)
    client = httpx2.AsyncClient(transport=transport, headers=dict(headers), timeout=timeouts)
    async with client, streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams:
        yield _HttpConnection(transport, streams)


def tls_context() -> ssl.SSLContext:
    """What is checked of servers, as the environment says.

    Raises:
        ValueError: The environment names what is no certificate.
    """
    try:
        config = MCPClientTLSConfig.from_env()
        verify = not get_http_client_settings().skip_ssl_verify
        return create_ssl_context(config or MCPClientTLSConfig(verify=verify), "proxy")
    except (PluginError, ValueError) as error:
        text = str(error.__cause__ or error)
        help = "check the files that the variables `PLUGINS_CLIENT_MTLS_...` name"
        raise ValueError(f"cannot set up TLS towards servers: {text}; {help}") from error


class _HttpConnection:
    def __init__(self, transport: _Transport, streams: TransportStreams) -> None:
        self._transport = transport
        self._incoming, self._outgoing = streams
        self._handshake: RequestId | None = None
        self._version: str | None = None
        self._tools = RepeatedArguments()

    async def receive(self) -> Message | None:
        """The next message of any of the server's streams; `None` when the server has ended the session."""
        while not self._transport.lost:
            try:
                item = await self._incoming.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                return None
            # An exception stands for an event that is no message.
            if not isinstance(item, SessionMessage):
                continue
            message = item.message.model_dump(mode="json", by_alias=True, exclude_unset=True)
            # What the SDK says in the place of an answer: the reason is known better here.
            if self._transport.lost and "error" in message:
                return None
            self._note_version(message)
            self._tools.learn(message)
            return self._explained(message)
        return None

    def _note_version(self, message: Message) -> None:
        if self._handshake is not None and message.get("id") == self._handshake and "method" not in message:
            self._handshake = None
            version = (message.get("result") or {}).get("protocolVersion")
            self._version = version if isinstance(version, str) else None

    def _explained(self, message: Message) -> Message:
        error = message.get("error")
        if error is None or error.get("code") != CONNECTION_CLOSED or not str(error["message"]).startswith("SSE "):
            return message
        text = f"the connection to {self._transport.url} was lost before the answer"
        return {**message, "error": {"code": CONNECTION_CLOSED, "message": text}}

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Post it; a request's answer, or why there is none, is received later."""
        if message.get("method") == "initialize":
            self._handshake = message["id"]
        headers = self._tools.headers(message) if envelope(message.get("params")) is not None else self._agreed()
        if "method" not in message or "id" not in message:
            # The SDK posts these one after another: one that the server never takes would hold up all that follow.
            headers[_BOUNDED] = "1"
        metadata = ClientMessageMetadata(headers=headers)
        try:
            checked = jsonrpc_message_adapter.validate_python(whole(message))
        except ValidationError as error:
            text = "the message does not fit the protocol, and was not sent"
            raise LinkError(text, code="protocol", sent=False) from error
        try:
            await self._outgoing.send(SessionMessage(checked, metadata))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise LinkError("the connection is closed", code="lost", sent=False) from error

    def _agreed(self) -> dict[str, str]:
        return {_VERSION: self._version} if self._version else {}

    async def forget(self, id: RequestId) -> None:
        """A server of this side sends no requests that must be ended."""

    def headers(self, id: RequestId) -> Mapping[str, str]:
        """There are none."""
        return {}

    def reason(self) -> str:
        """Why the session is over, where that is known: HTTP has no connection that could end."""
        return self._transport.lost


class _Transport(httpx2.AsyncBaseTransport):
    """A pool of connections, for one client and one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lost = ""
        """Why the session is over, if it is."""
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls_context() if url.lower().startswith("https:") else None,
            max_connections=_CONNECTIONS,
            network_backend=checking_backend(public_only=get_ssrf_settings().ssrf_protection_enabled),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Its failure is a response with a JSON-RPC error."""
        url = request.url
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        try:
            response = await self._pool.handle_async_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=[each for each in request.headers.raw if each[0].lower() != _BOUNDED.encode()],
                    content=request.stream,
                    extensions=_limited(request),
                )
            )
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
            return _error_response(502, CONNECTION_CLOSED, self._failure(error))
        if request.method == "POST" and response.status >= 400:
            return await self._refused(request, response)
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Stream(response), extensions=response.extensions
        )

    async def _refused(self, request: httpx2.Request, response: httpcore2.Response) -> httpx2.Response:
        """What a server refuses with: its own JSON-RPC error, else one that says what the status means."""
        status = response.status
        if status == 404 and _SESSION in request.headers:
            self.lost = f"{self.url} knows the session no more: it was started anew, or has ended it"
        body = bytearray()
        try:
            async with asyncio.timeout(_TOLD_S):
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > _MAX_REFUSAL_BYTES:
                        break
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, TimeoutError):
            body.clear()
        finally:
            await response.aclose()
        if (told := parsed(bytes(body))) is not None and "error" in told:
            return httpx2.Response(status, headers={"content-type": "application/json"}, content=bytes(body))
        help = _HELP.get(status, "its log says why")
        code = METHOD_NOT_FOUND if status == 404 else CONNECTION_CLOSED
        return _error_response(status, code, f"{self.url} answered with HTTP status {status}; {help}")

    def _failure(self, error: BaseException) -> str:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, AddressRefused):
                return f"cannot reach {self.url}: {cause}"
            if isinstance(cause, ssl.SSLError):
                what = getattr(cause, "verify_message", "") or cause.reason or cause
                help = "name its authority in `PLUGINS_CLIENT_MTLS_CA_BUNDLE`, and check the host name"
                return f"TLS with {self.url} failed: {what}; {help}"
            cause = cause.__cause__ or cause.__context__
        text = str(error) or type(error).__name__
        if isinstance(error, httpcore2.ConnectError | httpcore2.ConnectTimeout | OSError):
            return f"cannot reach {self.url}: {text}"
        return f"the connection to {self.url} was lost before the answer: {text}"

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


_HELP = {
    401: "it wants to know who asks; tell it by `--header 'Authorization: ...'`, or `headers` in the file of servers",
    403: "it does not let this client in",
    404: "is that the address of an MCP server?",
    405: "is that the address of an MCP server?",
    413: "the message is too large for it",
    429: "it has been asked too often",
}


def _limited(request: httpx2.Request) -> dict[str, Any]:
    """A request's extensions, with limits of time where nobody waits who could give up."""
    extensions = dict(request.extensions)
    # The farewell is a DELETE: a server that hangs must not keep this process.
    limit = _FAREWELL_S if request.method == "DELETE" else _TOLD_S if _BOUNDED in request.headers else None
    if limit is not None:
        extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), limit)
    return extensions


def _error_response(status: int, code: int, text: str) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}}
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=json.dumps(body).encode())


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
