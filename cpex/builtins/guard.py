"""What plugins that guard content have in common: one method for every hook, and one way to read what a hook carries.

A guard lists the hooks that it handles and decides in `on_hook`. It sees the same in a payload of a single hook family
and in a message of the common format: texts with the places where they stand.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from cpex.builtins.content import content_of, is_message_payload
from cpex.builtins.text import Leaf, leaves
from cpex.framework import Plugin, PluginConfig, PluginContext, PluginMode, PluginPayload, PluginResult

__all__ = ["Guard", "GuardedCall"]

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[PluginResult[Any]]]

_CHANGING = frozenset({PluginMode.SEQUENTIAL, PluginMode.TRANSFORM})
_DENYING = frozenset({PluginMode.SEQUENTIAL, PluginMode.CONCURRENT})

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

    def __init__(self, config: PluginConfig, *more: Any) -> None:
        """Keep the configuration, and warn of an `action` that its mode makes nothing of."""
        super().__init__(config, *more)
        _warn_of_idle_action(type(self), config)

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Decide about one call."""
        raise NotImplementedError


def _warn_of_idle_action(cls: type[Guard], config: PluginConfig) -> None:
    """Say that nothing is changed or denied, where the mode is the reason: a leak would be the first sign otherwise.

    That denials only show is what a mode such as `audit` is chosen for; who wrote the `action` down may expect more.
    """
    written = (config.config or {}).get("action")
    field = cls.settings_model.model_fields.get("action") if cls.settings_model is not None else None
    action = written if written is not None or field is None else field.default
    if action in ("redact", "clean") and config.mode not in _CHANGING:
        what, modes = "changes nothing", "transform or sequential"
    elif written in ("block", "deny") and config.mode not in _DENYING:
        what, modes = "denies nothing", "sequential or concurrent"
    else:
        return
    if config.mode is not PluginMode.DISABLED:
        logger.warning(
            "Plugin '%s' has `action: %s` and %s in mode %s; for it to act, use mode %s",
            config.name,
            action,
            what,
            config.mode,
            modes,
        )


def _handler(hook: str) -> Handler:
    """A method that knows its hook, which the payload of a message does not tell for certain."""

    async def handle(
        self: Guard, payload: PluginPayload, context: PluginContext, extensions: Any = None
    ) -> PluginResult[Any]:
        return await self.on_hook(GuardedCall(hook, payload, context, extensions))

    handle.__name__ = hook
    handle.__qualname__ = f"Guard.{hook}"
    return handle
