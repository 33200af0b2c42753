"""The one contract that every transport fulfils, on both sides.

A `Link` carries questions to a plugin server and answers back; a `Service` answers them. A link knows addresses, bytes
and deadlines. It does not know hooks, payload classes, modes or settings of plugins: what it carries is JSON values
(the plain form) or bytes (a frame), made and read elsewhere. So a new transport is a link and a listener, and one suite
of tests holds them all to the same answers.

Source: docs/reference/external.md, "Transports".
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from cpex.framework.models.result import PluginErrorModel

__all__ = ["Link", "LinkError", "Service", "plain_answer"]


class LinkError(Exception):
    """A question got no answer.

    Attributes:
        code: Stable: `connect` (nothing could be asked), `lost` (the connection ended first), `timeout` (the
            transport's own limit ran out), `protocol` (the answer is not of the agreed form), `too_large` (question or
            answer is over the transport's limit), `remote` (the server refused to answer).
        sent: Whether the question may have reached the server. Only one that certainly has not may be asked again.
    """

    def __init__(self, message: str, *, code: str, sent: bool) -> None:
        super().__init__(message)
        self.code = code
        self.sent = sent


class Link(Protocol):
    """One connection to a plugin server. It says nothing of how many questions may be under way at once.

    Every method may be cancelled at any time; the connection must then be as good as new or closed, never in a state in
    which the answer to one question could be taken for another's. After any `LinkError`, `open` may be called again.
    """

    async def open(self) -> None:
        """Connect, or do nothing when connected. One attempt: whoever calls decides about others.

        Raises:
            LinkError: With code `connect`; the message says what, where and how to mend it.
        """

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """What the server says about a plugin: fields of a `PluginConfig`; empty when it does not know it.

        Raises:
            LinkError: There was no answer.
        """

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask in the plain form.

        Returns:
            `{"plugin_name"?, "result"?, "context"?, "error"?}`, as `Service.invoke_hook` makes it.

        Raises:
            LinkError: There was no answer.
        """

    async def exchange(self, frame: bytes) -> bytes:
        """Ask with a frame. Used only when the server has said that it knows frames.

        Raises:
            LinkError: There was no answer.
        """

    @property
    def connected(self) -> bool:
        """Whether a question could be asked now. A peer that vanished without a word may not have been noticed yet."""

    async def close(self) -> None:
        """Release everything: sockets, child processes, tasks. Never raises; may be called more than once."""


class Service(Protocol):
    """What a listener serves. The names are those of the wire."""

    async def get_plugin_configs(self) -> list[dict[str, Any]]:
        """What `get_plugin_config` would say about each plugin."""

    async def get_plugin_config(self, name: str) -> dict[str, Any] | None:
        """The policy of one plugin; `None` when there is none of that name, which is compared without case."""

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Answer a question in the plain form. Failures of plugins are answers; nothing but cancellation is raised.

        Returns:
            `{"plugin_name", "result", "context"?}` or `{"plugin_name", "error"}`; `plain_answer` writes an error out.
        """

    async def exchange(self, frame: bytes) -> bytes:
        """Answer a frame. Failures of plugins are answers; nothing but cancellation is raised."""

    @property
    def health(self) -> Literal["healthy", "degraded", "unhealthy"]:
        """Whether the plugins are running; `degraded` when some that may be missing are not."""


def plain_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """What `Service.invoke_hook` answered, with an error as a dict, for a listener to write down."""
    error = answer.get("error")
    return answer | {"error": error.model_dump()} if isinstance(error, PluginErrorModel) else answer
