"""What the sinks have in common: records of hook calls go into a delivery, and nobody waits for it."""

from __future__ import annotations

import logging
from abc import abstractmethod

from cpex.builtins.observability._delivery import Delivery, SinkSettings
from cpex.builtins.observability._events import EventForm
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._records import encode
from cpex.framework import PluginConfig
from cpex.framework.models import HookOutcome


class Sink(HookObserver):
    """A plugin that hands records of hook calls to a backend. Never denies, and never waits for the backend."""

    def __init__(self, config: PluginConfig, settings: SinkSettings) -> None:
        """Prepare the delivery; subclasses validate the settings."""
        super().__init__(config)
        logger = logging.getLogger(type(self).__module__)
        self._form = EventForm(settings)
        self.delivery = Delivery(config.name, settings, self._send, logger)
        """What has become of the records: `delivered`, `dropped`."""
        if settings.may_tell_unredacted(config.mode):
            logger.warning(
                "Plugin '%s' sends payload values and runs in mode %s, so it may see them before they are redacted; "
                "use mode audit or fire_and_forget, or `include_payload: keys`",
                config.name,
                config.mode,
            )
        if settings.drain_s >= config.shutdown_timeout_s:
            logger.warning(
                "Plugin '%s': `drain_s` (%gs) is not shorter than the plugin's `shutdown_timeout_s` (%gs), which cuts "
                "it off: records that wait by then are dropped; lower the one or raise the other",
                config.name,
                settings.drain_s,
                config.shutdown_timeout_s,
            )

    @abstractmethod
    async def _send(self, records: list[bytes]) -> None:
        """Deliver records, each one line; raises `Unreachable` or `Undeliverable`."""

    async def shutdown(self) -> None:
        """Deliver what waits, for `drain_s` seconds at most. Does nothing the second time."""
        try:
            await self.delivery.stop()
        finally:
            self.failures.tell_rest()

    async def on_call(self, call: HookCall) -> None:
        """Hand over an `attempt`."""
        if (record := self._form.attempt(call)) is not None:
            self.delivery.put(encode(record))

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Hand over a `decision`."""
        if (record := self._form.decision(outcome)) is not None:
            self.delivery.put(encode(record))
