"""A transport without a network: the link calls the service of the same process.

Everything is encoded and decoded as on any other transport. It proves the contract of `port.py`, carries its tests, and
lets the author of a plugin server try it without opening a socket.
"""

from __future__ import annotations

import json
from typing import Any

from cpex.framework.external.plugin import RemotePlugin
from cpex.framework.external.port import Link, LinkError, Service, plain_answer
from cpex.framework.models.config import PluginConfig

__all__ = ["MemoryExternalPlugin", "MemoryLink"]


class MemoryLink:
    """A link to a service in this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open = False

    @property
    def connected(self) -> bool:
        """Whether it has been opened."""
        return self._open

    async def open(self) -> None:
        """Connect."""
        self._open = True

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """Ask about a plugin."""
        self._check()
        config: dict[str, Any] = _through_json(await self._service.get_plugin_config(name) or {})
        return config

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask in the plain form."""
        self._check()
        arguments = _through_json([hook_type, plugin_name, payload, context])
        answer: dict[str, Any] = _through_json(plain_answer(await self._service.invoke_hook(*arguments)))
        return answer

    async def exchange(self, frame: bytes) -> bytes:
        """Ask with a frame."""
        self._check()
        return await self._service.exchange(frame)

    async def close(self) -> None:
        """Disconnect."""
        self._open = False

    def _check(self) -> None:
        if not self._open:
            raise LinkError("the link to the plugin server is closed; open it first", code="connect", sent=False)


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


class MemoryExternalPlugin(RemotePlugin):
    """A plugin behind a service of this process."""

    def __init__(self, config: PluginConfig, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def _make_link(self) -> Link:
        return MemoryLink(self._service)

    def _address(self) -> str:
        return "this process"
