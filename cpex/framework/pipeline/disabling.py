"""Plugins that are switched off at run time because they failed (`on_error: disable`)."""

from __future__ import annotations

from cpex.framework import clock
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import Step


class Disabled(set[str]):
    """Names of the disabled plugins, and since when.

    A plugin with a `disable_cooldown_s` gets one trial call when that time is over, and stays disabled for all other
    calls until the trial has succeeded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[str, float] = {}

    def disable(self, name: str) -> None:
        """Switch a plugin off, or start its cool-down anew."""
        if name not in self:
            logger.warning("Plugin %s is disabled after a failure (on_error: disable)", name)
        self._since[name] = clock.monotonic()
        self.add(name)

    def passed(self, step: Step) -> None:
        """Note that a turn went well: the plugin's trial, if this was one, has succeeded."""
        # Without a cool-down there are no trials: this turn began before the plugin was disabled.
        if step.name in self and step.disable_cooldown_s is not None:
            logger.info("Plugin %s is enabled again", step.name)
            self._since.pop(step.name, None)
            self.discard(step.name)

    def clear(self) -> None:
        """Switch all plugins on again."""
        self._since.clear()
        super().clear()

    def admits(self, step: Step) -> bool:
        """Whether a plugin may run: it is enabled, or its trial is due."""
        if step.name not in self:
            return True
        if step.disable_cooldown_s is None:
            return False
        now = clock.monotonic()
        if now - self._since.get(step.name, now) < step.disable_cooldown_s:
            return False
        self._since[step.name] = now
        return True
