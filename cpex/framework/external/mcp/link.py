"""A link that speaks MCP over some channel: the handshake, and the three tools of a plugin server.

Source: docs/reference/external.md, "MCP".
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from cpex.framework.constants import (
    CONTEXT,
    ERROR,
    GET_PLUGIN_CONFIG,
    HOOK_TYPE,
    INVOKE_HOOK,
    NAME,
    PAYLOAD,
    PLUGIN_NAME,
    RESULT,
)
from cpex.framework.external.mcp.messages import frame_of, object_in, text_of_frame, texts_in
from cpex.framework.external.port import LinkError

__all__ = ["FRAME", "Channel", "McpLink"]

FRAME = "frame"
"""Additional argument of `invoke_hook` between two ends that know frames."""
HANDSHAKE_TIMEOUT_S = 20.0
"""Seconds for a connection and its handshake; a call's own deadline may be shorter."""


class Channel(Protocol):
    """Carries JSON-RPC. Any number of requests may be under way, and each gets its own answer or an error."""

    async def open(self) -> None:
        """Make it possible to ask.

        Raises:
            LinkError: It is not.
        """

    def agreed(self, version: str) -> None:
        """Take note of the protocol version that the handshake ended with."""

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Ask, and wait for the result. When cancelled, the server is told so without waiting for it.

        Raises:
            LinkError: There is no result.
            WireError: `params` cannot be sent.
        """

    async def notify(self, method: str) -> None:
        """Send what has no answer.

        Raises:
            LinkError: It could not be sent.
        """

    @property
    def connected(self) -> bool:
        """Whether it is open, as far as this end can tell."""

    def hint(self) -> str:
        """What else is known of the server, as the end of a message; may be empty."""

    async def close(self, *, at_once: bool) -> None:
        """Release everything; `at_once` without giving the server time for a farewell. Never raises."""


class McpLink:
    """A connection to a plugin server over MCP; see `port.Link`."""

    def __init__(self, channel: Channel) -> None:
        """Set up; nothing is opened yet."""
        self._channel = channel
        self._greeted = False

    @property
    def connected(self) -> bool:
        """Whether there has been a handshake and the channel is still open."""
        return self._greeted and self._channel.connected

    async def open(self) -> None:
        """Connect and shake hands, or do nothing when that is done.

        Raises:
            LinkError: With code `connect`: the server could not be reached, did not shake hands in time, or speaks
                another version of the protocol. The channel is closed.
        """
        if self.connected:
            return
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self._channel.open()
                await self._shake_hands()
            self._greeted = True
        except TimeoutError as error:
            hint = self._channel.hint()
            text = f"the server did not shake hands within {HANDSHAKE_TIMEOUT_S:g}s; is it an MCP server?{hint}"
            raise LinkError(text, code="connect", sent=False) from error
        except LinkError as error:
            # A hook that was to be called has not been.
            raise LinkError(str(error), code="connect", sent=False) from error
        finally:
            if not self._greeted:
                await self._channel.close(at_once=True)

    async def _shake_hands(self) -> None:
        # Loaded on first use: the types of the whole protocol take their time.
        from mcp_types import ClientCapabilities, Implementation, InitializeRequestParams
        from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

        params = InitializeRequestParams(
            protocol_version=LATEST_HANDSHAKE_VERSION,
            capabilities=ClientCapabilities(),
            client_info=Implementation(name="cpex", version="0.1"),
        )
        result = await self._channel.request("initialize", params.model_dump(by_alias=True, exclude_none=True))
        version = result.get("protocolVersion")
        if version not in HANDSHAKE_PROTOCOL_VERSIONS:
            known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
            text = f"the server speaks MCP version {str(version)[:40]!r}, and this end one of {known}; update the older"
            raise LinkError(text, code="connect", sent=False)
        self._channel.agreed(version)
        await self._channel.notify("notifications/initialized")

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """Ask about a plugin."""
        for text in await self._call(GET_PLUGIN_CONFIG, {NAME: name}):
            return object_in(text)
        return {}

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask in the plain form."""
        arguments = {HOOK_TYPE: hook_type, PLUGIN_NAME: plugin_name, PAYLOAD: payload, CONTEXT: context}
        answer: dict[str, Any] = {}
        for text in await self._call(INVOKE_HOOK, arguments):
            # Servers may send the context as an item of its own, before the result.
            answer |= object_in(text)
            if RESULT in answer or ERROR in answer:
                return answer
        raise _no_answer()

    async def exchange(self, frame: bytes) -> bytes:
        """Ask with a frame."""
        # What the tool requires is there and empty; a server that knows frames reads the frame alone.
        arguments = {HOOK_TYPE: "", PLUGIN_NAME: "", PAYLOAD: {}, CONTEXT: {}, FRAME: text_of_frame(frame)}
        for text in await self._call(INVOKE_HOOK, arguments):
            return frame_of(text)
        raise _no_answer()

    async def _call(self, tool: str, arguments: dict[str, Any]) -> list[str]:
        return texts_in(await self._channel.request("tools/call", {"name": tool, "arguments": arguments}))

    async def close(self) -> None:
        """Release everything."""
        greeted, self._greeted = self._greeted, False
        await self._channel.close(at_once=not greeted)


def _no_answer() -> LinkError:
    return LinkError("Received invalid response: the server's answer is empty", code="protocol", sent=True)
