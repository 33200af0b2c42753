"""What plugins that guard content have in common: one method for every hook, and one way to read what a hook carries.

A guard lists the hooks that it handles and decides in `on_hook`. It sees the same in a payload of a single hook family
and in a message of the common format: texts with the places where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from cpex.builtins.content import content_of, is_message_payload
from cpex.builtins.text import Leaf, leaves
from cpex.framework import Plugin, PluginContext, PluginPayload, PluginResult

__all__ = ["Guard", "GuardedCall"]

Handler = Callable[..., Awaitable[PluginResult[Any]]]

# Where the data of a medium stand in a message, and data that are encoded: nothing in them reads as text, and there may
# be megabytes of them. An address, or anything with blanks, is no such data.
_MEDIUM = re.compile(r"(?:content\[\d+\]\.content\.messages\[\d+\]\.)*content\[\d+\]\.content\.data")
_ENCODED = re.compile(r"[A-Za-z0-9+/_\r\n-]*={0,2}\s*")


@dataclass(frozen=True, slots=True)
class GuardedCall:
    """One turn of a guard in one hook call."""

    hook: str
    payload: PluginPayload
    context: PluginContext
    extensions: Any = None

    @property
    def stage(self) -> str:
        """Where in the agent's loop the call stands: the hook's name without `cmf.`; `evaluate` as the host says."""
        if self.hook == "evaluate" and is_message_payload(self.payload):
            return self.payload.hook.value
        return self.hook.removeprefix("cmf.")

    def texts(self) -> Iterator[Leaf]:
        """Every text of the content, dict keys included, in reading order.

        The data of images and other media in a message are left out, but for the text that they hold.

        Raises:
            StructureTooLargeError: At the value that goes beyond the bounds of `cpex.builtins.text`.
        """
        if is_message_payload(self.payload):
            from cpex.framework.cmf.text import iter_text

            for found in iter_text(self.payload.message):
                if not (_MEDIUM.fullmatch(found.path) and _ENCODED.fullmatch(found.text)):
                    yield Leaf(found.text, None, place=found.path)
            return
        values = content_of(self.payload).values(self.payload)
        yield from chain.from_iterable(leaves(value, name) for name, value in values.items())


class Guard(Plugin):
    """Base class of plugins that decide about content. A subclass sets `guards` and writes `on_hook`."""

    guards: ClassVar[tuple[str, ...]] = ()
    """Hooks that the plugin handles."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Bind `on_hook` to every hook of `guards`, under the hook's own name."""
        super().__init_subclass__(**options)
        for hook in cls.guards:
            if not hasattr(cls, hook):
                setattr(cls, hook, _handler(hook))

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Decide about one call."""
        raise NotImplementedError


def _handler(hook: str) -> Handler:
    """A method that knows its hook, which the payload of a message does not tell for certain."""

    async def handle(
        self: Guard, payload: PluginPayload, context: PluginContext, extensions: Any = None
    ) -> PluginResult[Any]:
        return await self.on_hook(GuardedCall(hook, payload, context, extensions))

    handle.__name__ = hook
    handle.__qualname__ = f"Guard.{hook}"
    return handle
