"""What the adapters share: one POST with a deadline, and what becomes of a question that gets no answer."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from cpex.framework.clock import elapsed_ns
from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.pdp.base import FAIL_OPEN, PdpError, PdpResolver, PdpResult
from cpex.framework.pdp.endpoint import Endpoint

if TYPE_CHECKING:
    # Imported when the first question is asked.
    import httpx2

__all__ = ["DEFAULT_TIMEOUT_MS", "BadAnswer", "HttpResolver"]

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_MS = 500
MAX_RESPONSE_BYTES = 1_000_000


class BadAnswer(Exception):
    """The engine answered with something that is no decision; the text says what is wrong with it."""


class _NoDecision(Exception):
    """Why a question got no answer: in full for the error, in short for a result that is allowed nevertheless."""

    def __init__(self, text: str, short: str, cause: BaseException | None = None) -> None:
        super().__init__(text)
        self.short = short
        self.cause = cause


class HttpResolver(PdpResolver):
    """A resolver that POSTs JSON and reads JSON. Redirects are not followed: who decides is configured, not told.

    Attributes:
        fail_open: Whether a question that gets no answer counts as allowed, with a WARNING each time.
    """

    PREFIX = "PDP"
    """How messages call the engine."""

    def __init__(
        self,
        endpoint: str,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        headers: Mapping[str, str] | None = None,
        fail_open: bool = False,
        *,
        connect_timeout_ms: int | None = None,
        retries: int = 0,
        tls: MCPClientTLSConfig | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        """Check the settings; nothing is opened yet.

        Args:
            endpoint: A URL, whose path and query may hold `{key}` for text of the question's top level.
            timeout_ms: Milliseconds for the whole question, retries included.
            headers: Added to every request.
            fail_open: Let pass what gets no answer.
            connect_timeout_ms: Milliseconds for one attempt to connect, when less than the whole.
            retries: How often a lost or refused connection is tried again.
            tls: Certificates and checks; without them the system's authorities count.
            max_response_bytes: An answer that is larger is none.

        Raises:
            ValueError: A setting is refused; the text says which and why.
        """
        if timeout_ms <= 0 or retries < 0 or (connect_timeout_ms is not None and connect_timeout_ms <= 0):
            raise ValueError("timeout_ms and connect_timeout_ms must be positive, and retries not negative")
        self._endpoint = Endpoint(endpoint)
        self.endpoint = endpoint
        self.timeout_ms = timeout_ms
        self.fail_open = fail_open
        self._headers = dict(headers or {})
        self._connect_timeout_ms = connect_timeout_ms
        self._retries = retries
        self._tls = tls
        self._max_response_bytes = max_response_bytes
        # A connection lives in the event loop that opened it.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()

    @abstractmethod
    def question(self, input_data: dict[str, Any]) -> dict[str, Any]:
        """The body of the request.

        Raises:
            ValueError: The facts cannot be asked about.
        """

    @abstractmethod
    def answer(self, body: dict[str, Any]) -> PdpResult:
        """The decision that an answer's body holds.

        Raises:
            BadAnswer: It holds none.
        """

    async def resolve(self, input_data: dict[str, Any]) -> PdpResult:
        """Ask whether an operation may happen; see `PdpResolver.resolve`."""
        started = elapsed_ns()
        try:
            try:
                url, body = self._endpoint.fill(input_data), _json(self.question(input_data))
            # What a caller hands over may be anything: a set, an object, a structure that contains itself.
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise _NoDecision(f"bad input: {error}", "bad input", error) from error
            result = await self._asked(url, body)
        except _NoDecision as missing:
            result = self._without_decision(missing)
        return replace(result, latency_ms=(elapsed_ns() - started) / 1_000_000)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _asked(self, url: str, body: bytes) -> PdpResult:
        answered = await self._post(url, body)
        try:
            return self.answer(answered)
        except BadAnswer as error:
            raise _NoDecision(f"bad response: {error}", "bad response") from error

    def bad_answer(self, text: str) -> PdpResult:
        """What becomes of an answer whose fault shows only beside its question.

        Raises:
            PdpError: The resolver does not fail open.
        """
        return self._without_decision(_NoDecision(f"bad response: {text}", "bad response"))

    def _without_decision(self, missing: _NoDecision) -> PdpResult:
        if self.fail_open:
            logger.warning(
                "%s gave no decision (%s; %s), and the call is let pass because the resolver fails open",
                self.PREFIX,
                missing,
                self._endpoint.shown,
            )
            return PdpResult(True, f"{self.PREFIX} {missing.short}{FAIL_OPEN}")
        text = f"{self.PREFIX} {missing} ({self._endpoint.shown})"
        raise PdpError(text, self.endpoint, missing.cause) from missing.cause

    async def _post(self, url: str, body: bytes) -> dict[str, Any]:
        import httpx2

        try:
            async with asyncio.timeout(self.timeout_ms / 1000):
                for left in reversed(range(self._retries + 1)):
                    try:
                        return await self._attempt(url, body)
                    except httpx2.TransportError:
                        if not left:
                            raise
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _NoDecision(f"timeout after {self.timeout_ms}ms", "timeout", error) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _NoDecision(
                f"connection error: {str(error) or type(error).__name__}", "unreachable", error
            ) from error
        raise AssertionError("the last attempt either returns or raises")

    async def _attempt(self, url: str, body: bytes) -> dict[str, Any]:
        import httpx2

        async with self._client().stream("POST", url, content=body) as response:
            if not response.is_success:
                status = f"HTTP {response.status_code}"
                cause = httpx2.HTTPStatusError(status, request=response.request, response=response)
                raise _NoDecision(status, status, cause) from cause
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > self._max_response_bytes:
                    raise _NoDecision(
                        f"bad response: it is larger than {self._max_response_bytes:,} bytes", "bad response"
                    )
        try:
            document = json.loads(received)
        except (ValueError, RecursionError) as error:
            raise _NoDecision("bad response: its body is not JSON", "bad response", error) from error
        if not isinstance(document, dict):
            raise _NoDecision("bad response: its body is not a JSON object", "bad response")
        return document

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            connect_ms = min(self._connect_timeout_ms or self.timeout_ms, self.timeout_ms)
            client = self._clients[loop] = httpx2.AsyncClient(
                # A small answer gains nothing from compression, and a bomb gains much.
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **self._headers},
                timeout=httpx2.Timeout(self.timeout_ms / 1000, connect=connect_ms / 1000),
                follow_redirects=False,
                verify=_context(self._tls) if self._tls is not None else True,
            )
        return client


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


def _context(tls: MCPClientTLSConfig) -> ssl.SSLContext:
    """The client's side of TLS, at least 1.2.

    Raises:
        ValueError: A certificate or key cannot be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if not tls.verify:
            logger.warning("the certificate of the policy decision point is not checked (tls.verify is false)")
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif tls.ca_bundle:
            context.load_verify_locations(tls.ca_bundle)
        if not tls.check_hostname:
            context.check_hostname = False
        if tls.certfile:
            context.load_cert_chain(tls.certfile, tls.keyfile, tls.keyfile_password)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"the certificates of `tls` cannot be used: {error}") from error
    return context
