"""MCP over streamable HTTP, on TCP, TLS or a Unix socket: one POST for each request, the answer in its response.

A POST stands for itself: when it fails, the others go on, and it is known whether it had left. A caller that stops
waiting closes its POST, and the server is told by another one. What a server might send by itself is not asked for.

Source: https://modelcontextprotocol.io/specification/2025-11-25/basic/transports; docs/reference/external.md, "HTTP".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from cpex.framework.external.addresses import AddressRefused, check_uds, checked_addresses
from cpex.framework.external.mcp import messages
from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES
from cpex.framework.external.port import LinkError

if TYPE_CHECKING:
    import httpcore2

__all__ = ["Endpoint", "HttpChannel", "Limits", "checking_backend"]

_SESSION, _VERSION = b"mcp-session-id", b"mcp-protocol-version"
_EVENTS, _JSON = "text/event-stream", "application/json"
_FAREWELL_S = 2.0
"""Seconds for what is only polite: a cancellation, the end of a session, the end of an answered response."""
_REDIRECTS = 3
_KEEPING_THE_METHOD = (307, 308)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the connections to one server; times in seconds, `None` for no limit but the caller's."""

    connections: int = 200
    kept_alive: int = 100
    keepalive_s: float = 30.0
    connect_s: float = 5.0
    read_s: float | None = 120.0
    write_s: float | None = 30.0
    pool_s: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and what is checked on the way."""

    url: str
    uds: str | None = None
    tls: ssl.SSLContext | None = None
    """Needed for `https`."""
    public_only: bool = True
    """Whether names that lead into private networks are refused."""

    def __str__(self) -> str:
        return f"{self.url} (Unix socket {self.uds})" if self.uds else self.url


class HttpChannel:
    """A channel to an HTTP server; see `link.Channel`."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        """Keep the address; nothing is opened yet."""
        self._endpoint = endpoint
        self._url = endpoint.url
        self._limits = limits
        self._pool: httpcore2.AsyncConnectionPool | None = None
        self._session: bytes | None = None
        self._version: bytes | None = None
        self._ids = itertools.count(1)
        self._farewells: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether the server was there when it was last asked."""
        return self._pool is not None

    async def open(self) -> None:
        """Make a pool of connections; the first one is made by the first request."""
        # Loaded on first use, as everything of the SDK.
        import httpcore2

        limits, endpoint = self._limits, self._endpoint
        if endpoint.uds is not None:
            check_uds(endpoint.uds)
        self._url = endpoint.url
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=endpoint.tls,
            max_connections=limits.connections,
            max_keepalive_connections=limits.kept_alive,
            keepalive_expiry=limits.keepalive_s,
            uds=endpoint.uds,
            network_backend=None if endpoint.uds else checking_backend(endpoint.public_only),
        )

    def agreed(self, version: str) -> None:
        """Later requests name the version."""
        self._version = version.encode()

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Ask."""
        id = next(self._ids)
        data = messages.request(id, method, params)
        try:
            async with self._exchange("POST", data) as body:
                return messages.result_of(await body.answer_to(id))
        except asyncio.CancelledError:
            self._say_farewell("POST", messages.cancellation(id))
            raise

    async def notify(self, method: str) -> None:
        """Tell."""
        async with self._exchange("POST", messages.notification(method)) as body:
            await body.finish()

    def hint(self) -> str:
        """Nothing more is known."""
        return ""

    async def close(self, *, at_once: bool) -> None:
        """End the session and every connection."""
        if self._session is not None and self._pool is not None and not at_once:
            self._say_farewell("DELETE", b"")
        farewells = list(self._farewells)
        try:
            if farewells and not at_once:
                await asyncio.wait(farewells, timeout=_FAREWELL_S)
        finally:
            pool, self._pool = self._pool, None
            self._session = self._version = None
            for task in farewells:
                task.cancel()
            if farewells:
                await asyncio.wait(farewells, timeout=_FAREWELL_S)
            if pool is not None:
                await _closed(pool)

    def _say_farewell(self, method: str, data: bytes) -> None:
        """Tell the server something that nobody waits for."""
        if self._session is not None:
            task = asyncio.get_running_loop().create_task(self._told(method, data))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    async def _told(self, method: str, data: bytes) -> None:
        with contextlib.suppress(LinkError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S), self._exchange(method, data) as body:
                await body.finish()

    # One request and its response.

    @contextlib.asynccontextmanager
    async def _exchange(self, method: str, data: bytes) -> AsyncIterator[_Body]:
        import httpcore2

        pool, url = self._pool, self._url
        if pool is None:
            raise LinkError(f"the connection to {self._endpoint} is closed", code="connect", sent=False)
        try:
            for _ in range(_REDIRECTS + 1):
                async with pool.stream(
                    method, url, headers=self._request_headers(), content=data, extensions=self._timeouts()
                ) as response:
                    target = _redirect(response, url)
                    if target is None:
                        self._check_status(response, method)
                        body = _Body(response)
                        try:
                            if method == "POST" and self._session is None:
                                self._session = _headers(response).get(_SESSION)
                            yield body
                        finally:
                            await body.close()
                        return
                # Only ever to the same server: a redirect must not send a payload where nobody configured it to go.
                url = self._url = target
            text = f"{self._endpoint} redirects in a circle; write the URL that it ends at"
            raise LinkError(text, code="remote", sent=False)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            self._gone(pool)
            raise LinkError(self._unreachable(error), code="connect", sent=False) from error
        except httpcore2.PoolTimeout as error:
            text = f"no connection to {self._endpoint} became free in {self._limits.pool_s}s; raise its limits"
            raise LinkError(text, code="timeout", sent=False) from error
        except (httpcore2.ReadTimeout, httpcore2.WriteTimeout) as error:
            text = f"{self._endpoint} did not answer within the HTTP client's limit ({type(error).__name__})"
            raise LinkError(text, code="timeout", sent=True) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise LinkError(self._lost(error), code="lost", sent=True) from error

    def _gone(self, pool: httpcore2.AsyncConnectionPool) -> None:
        if self._pool is pool:
            self._pool = None
            self._session = None
            # Its idle connections are closed by a task of their own: whoever noticed must not wait for that.
            task = asyncio.get_running_loop().create_task(_closed(pool))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    def _unreachable(self, error: Exception) -> str:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, AddressRefused):
                return str(cause)
            if isinstance(cause, ssl.SSLCertVerificationError):
                return f"TLS with {self._endpoint} failed: {cause.verify_message}; check `ca_bundle` and the host name"
            if isinstance(cause, ssl.SSLError):
                return f"TLS with {self._endpoint} failed: {cause.reason or cause}; check both ends' certificates"
            cause = cause.__cause__ or cause.__context__
        return f"cannot reach {self._endpoint}: {str(error) or type(error).__name__}; is the plugin server running?"

    def _lost(self, error: Exception) -> str:
        text = f"the connection to {self._endpoint} was lost before the answer: {str(error) or type(error).__name__}"
        if self._session is None and self._url.startswith("https:"):
            # With TLS 1.3 a server refuses its client only after the client's handshake, and need not say why.
            text += "; a server that refuses the client's certificate does that: check `certfile` and `keyfile`"
        return text

    def _request_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            # A Unix socket has no port to tell; servers check the name all the same.
            (b"host", urlsplit(self._url).netloc.encode("idna" if not self._url.isascii() else "ascii")),
            (b"accept", f"{_JSON}, {_EVENTS}".encode()),
            (b"content-type", _JSON.encode()),
            (b"user-agent", b"cpex"),
        ]
        if self._session is not None:
            headers.append((_SESSION, self._session))
        if self._version is not None:
            headers.append((_VERSION, self._version))
        return headers

    def _timeouts(self) -> dict[str, Any]:
        limits = self._limits
        timeout = {"connect": limits.connect_s, "read": limits.read_s, "write": limits.write_s, "pool": limits.pool_s}
        return {"timeout": timeout}

    def _check_status(self, response: httpcore2.Response, method: str) -> None:
        status = response.status
        if status < 300 or method == "DELETE":
            return
        if status == 404 and self._session is not None:
            # The server has been restarted, or has tidied up: it has not looked at the request.
            if self._pool is not None:
                self._gone(self._pool)
            raise LinkError(f"{self._endpoint} has ended the session", code="lost", sent=False)
        help = _HELP.get(status, "the server's log says why")
        raise LinkError(f"{self._endpoint} answered with HTTP status {status}; {help}", code="remote", sent=True)


_HELP = {
    401: "it wants to know who asks; TLS with a client certificate is the way to tell it",
    403: "it refuses this host's requests",
    404: "plugin servers answer at the path /mcp",
    413: "the call is too large for it",
    421: "it does not answer under that host name; a server on a loopback address answers to localhost",
}


def checking_backend(public_only: bool) -> httpcore2.AsyncNetworkBackend:
    """Connects to addresses that were judged; a second look-up could tell another one."""
    import httpcore2

    class CheckingBackend(httpcore2.AnyIOBackend):
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore2.AsyncNetworkStream:
            try:
                addresses = await asyncio.wait_for(checked_addresses(host, port, public_only=public_only), timeout)
            except TimeoutError as error:
                raise httpcore2.ConnectTimeout(f"looking up {host} took too long") from error
            except OSError as error:
                raise httpcore2.ConnectError(f"{host}: {error.strerror or error}") from error
            failure: Exception = httpcore2.ConnectError(f"{host} has no address")
            for address in addresses:
                try:
                    return await super().connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failure = error
            raise failure

    return CheckingBackend()


def _redirect(response: httpcore2.Response, url: str) -> str | None:
    """Where a response sends the same request, on the same server."""
    location = _headers(response).get(b"location")
    if not 300 <= response.status < 400 or location is None:
        return None
    target = urljoin(url, location.decode("latin-1"))
    here, there = urlsplit(url), urlsplit(target)
    if response.status not in _KEEPING_THE_METHOD or (here.scheme, here.netloc) != (there.scheme, there.netloc):
        shown = f"{there.scheme}://{there.hostname}{there.path}"
        text = f"{url} redirects to {shown}, which is not followed; configure that URL if it is the right one"
        raise LinkError(text, code="remote", sent=False)
    return target


def _headers(response: httpcore2.Response) -> Mapping[bytes, bytes]:
    return {name.lower(): value for name, value in response.headers}


class _Body:
    """What a response holds, read once and as far as it is needed."""

    def __init__(self, response: httpcore2.Response) -> None:
        self.kind = _headers(response).get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        self._chunks = response.aiter_stream()
        self._rest = bytearray()
        self._searched = 0

    async def answer_to(self, id: int) -> dict[str, Any]:
        """The message that answers a request.

        Raises:
            LinkError: There is none, or it is too large.
        """
        if self.kind == _EVENTS:
            found = await self._answer_among_events(id)
            await self.finish()
        elif self.kind == _JSON:
            found = messages.parsed(await self._whole())
        else:
            text = f"the server's answer is neither {_JSON} nor {_EVENTS}; is the URL that of a plugin server?"
            raise LinkError(text, code="protocol", sent=True)
        if found is None or found.get("id") not in (id, None):
            raise LinkError("the server's response holds no answer to the request", code="protocol", sent=True)
        return found

    async def _answer_among_events(self, id: int) -> dict[str, Any] | None:
        while (line := await self._line()) is not None:
            # JSON has no line breaks, so each message is one `data` line.
            message = messages.parsed(line[5:]) if line.startswith(b"data:") else None
            if message is not None and "method" not in message and message.get("id") == id:
                return message
        return None

    async def _line(self) -> bytes | None:
        while (end := self._rest.find(b"\n", self._searched)) < 0:
            self._searched = len(self._rest)
            if not await self._more():
                return None
        line = bytes(self._rest[:end]).rstrip(b"\r")
        del self._rest[: end + 1]
        self._searched = 0
        return line

    async def _whole(self) -> bytes:
        while await self._more():
            pass
        return bytes(self._rest)

    async def _more(self) -> bool:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            return False
        self._rest += chunk
        if len(self._rest) > MAX_MESSAGE_BYTES:
            raise LinkError(f"the server's answer is over {MAX_MESSAGE_BYTES:,} bytes", code="too_large", sent=True)
        return True

    async def finish(self) -> None:
        """Read what is left, so that the connection can be used again; not for long, it is closed otherwise."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                while await anext(self._chunks, None) is not None:
                    pass

    async def close(self) -> None:
        """End the iteration, wherever it stands."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


async def _closed(pool: httpcore2.AsyncConnectionPool) -> None:
    import httpcore2

    with contextlib.suppress(OSError, httpcore2.NetworkError, httpcore2.ProtocolError, RuntimeError):
        await pool.aclose()
