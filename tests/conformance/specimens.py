"""Plugin classes that configurations of the conformance tests name by their dotted path."""

from __future__ import annotations

from typing import Any

from cpex.framework import Plugin, PluginContext, PluginResult, PluginViolation

HERE = __name__


class Allows(Plugin):
    """Has nothing to say."""

    async def tool_pre_invoke(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        return PluginResult(metadata={self.name: (self.config.config or {}).get("setting")})


class Denies(Plugin):
    """Denies everything."""

    async def tool_pre_invoke(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        violation = PluginViolation(reason="because", description="it is so", code="NO")
        return PluginResult(continue_processing=False, violation=violation)


class Journal(Plugin):
    """Notes in its settings' `journal` when it starts and stops; told to, it fails at either."""

    async def initialize(self) -> None:
        self._note("start")

    async def shutdown(self) -> None:
        self._note("stop")

    async def tool_pre_invoke(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        return PluginResult()

    def _note(self, what: str) -> None:
        settings = self.config.config or {}
        settings["journal"].append(f"{what} {self.name}")
        if settings.get("fails_at") == what:
            raise RuntimeError(f"cannot {what}")


class ChangesItsSettings(Plugin):
    """Writes into the settings it was made with."""

    async def tool_pre_invoke(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        assert self.config.config is not None
        self.config.config["limits"]["tools"].append("everything")
        return PluginResult()


class CannotBeMade(Plugin):
    """Refuses its settings."""

    def __init__(self, config: Any) -> None:
        raise ValueError("the settings are not to be borne")


class CannotStart(Plugin):
    """Finds something missing when it starts."""

    async def initialize(self) -> None:
        raise ConnectionError("nobody answers")

    async def tool_pre_invoke(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        return PluginResult()
