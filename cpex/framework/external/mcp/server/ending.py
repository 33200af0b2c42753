"""Ending responses in order when a web server is stopped: calls have their time, and streams are brought to a close.

A stream that waits for whatever may be said on it never ends by itself. Web servers cut it off, which clients take for
a failure and the server logs as one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Ending"]

logger = logging.getLogger(__name__)

_DISCONNECTED = {"type": "http.disconnect"}


class Ending:
    """An application whose open responses can be told that their clients have left, and are then completed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._calls = 0
        self._no_calls = asyncio.Event()
        self._no_calls.set()
        self._over = False
        self._listening: set[asyncio.Timeout] = set()

    async def end(self, calls_s: float) -> None:
        """Wait for the calls that are under way, then end every response that is still open.

        Args:
            calls_s: Seconds that calls may take. What came by POST is a call.
        """
        try:
            async with asyncio.timeout(calls_s):
                await self._no_calls.wait()
        except TimeoutError:
            logger.warning("Stopped with %d calls under way that had not ended within %g s", self._calls, calls_s)
        self._over = True
        now = asyncio.get_running_loop().time()
        for patience in self._listening:
            patience.reschedule(now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_call = scope["method"] == "POST"
        self._calls += is_call
        if is_call:
            self._no_calls.clear()
        try:
            await self._serve(scope, receive, send)
        finally:
            self._calls -= is_call
            if not self._calls:
                self._no_calls.set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = is_complete = False

        async def noting(message: Any) -> None:
            nonlocal is_begun, is_complete
            await send(message)
            is_begun = True
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        await self._app(scope, lambda: self._received(receive), noting)
        if self._over and not is_complete:
            if not is_begun:
                await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _received(self, receive: Receive) -> Any:
        """The next message of a request's client; that it has left once responses are ended."""
        if self._over:
            return _DISCONNECTED
        # Without a time until there is one: neither a task nor a timer for a request that is just answered.
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._listening.add(patience)
                return await receive()
        except TimeoutError:
            return _DISCONNECTED
        finally:
            self._listening.discard(patience)
