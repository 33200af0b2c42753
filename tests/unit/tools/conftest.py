from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpex.framework.utils import import_module

PLUGINS = '''
import asyncio
from datetime import UTC

from pydantic import BaseModel

from cpex.framework import Plugin, PluginPayload, PluginResult, PluginViolation, clock, hook
from cpex.framework.errors import PluginError
from cpex.framework.models.result import PluginErrorModel


class Mail(PluginPayload):
    subject: str


class Guard(Plugin):
    """Does what the name of the tool says, and notes what it saw."""

    def __init__(self, config):
        super().__init__(config)
        self.seen = []

    async def tool_pre_invoke(self, payload, context, extensions=None):
        agent = getattr(extensions, "agent", None)
        shared = context.global_context
        self.seen.append({
            "session": shared.metadata.get("session_id"),
            "agent_session": getattr(agent, "session_id", None),
            "state": dict(context.state),
            "time": clock.now().astimezone(UTC).isoformat(),
        })
        context.set_state("began", payload.name)
        if payload.name == "deny":
            violation = PluginViolation(reason="not this", description="Never.", code="NOT_THIS")
            return PluginResult(continue_processing=False, violation=violation)
        if payload.name == "crash":
            raise RuntimeError("boom")
        if payload.name == "redact":
            return PluginResult(
                modified_payload=payload.model_copy(update={"args": {**payload.args, "card": "[CARD]"}}),
                metadata={self.name: {"pii": {"card": 1}, "other": 3}},
            )
        return PluginResult(metadata={self.name: {"pii": {"card": 1}}} if payload.name == "find" else {})

    async def tool_post_invoke(self, payload, context):
        self.seen.append({"state": dict(context.state)})
        return PluginResult()


class Watcher(Plugin):
    """Waits in the background until it is told to go on, or not at all."""

    def __init__(self, config):
        super().__init__(config)
        self.go = asyncio.Event()
        self.done = 0
        self.told = []
        if not (config.config or {}).get("wait"):
            self.go.set()

    async def tool_pre_invoke(self, payload, context):
        await self.go.wait()
        await asyncio.sleep(0)
        self.done += 1
        return PluginResult()

    async def hook_completed(self, outcome):
        await asyncio.sleep(0)
        self.told.append((outcome.request_id, outcome.allowed))


class Mailer(Plugin):
    """Hooks of its own: one with a class and one without."""

    def __init__(self, config):
        super().__init__(config, hook_payloads={"mail_pre_queue": Mail})
        self.seen = []

    @hook("mail_pre_send")
    async def send(self, payload, context):
        self.seen.append(payload)
        return PluginResult()

    async def mail_pre_queue(self, payload, context):
        self.seen.append(payload)
        return PluginResult()


class Settings(BaseModel, extra="forbid"):
    limit: int = 1


class Strict(Plugin):
    def __init__(self, config):
        super().__init__(config)
        Settings.model_validate(config.config or {})
        print("constructed")

    async def initialize(self):
        raise OSError("no connection")

    async def tool_pre_invoke(self, payload, context):
        return PluginResult()
'''


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the module `t_plugins`, which is forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    (tmp_path / "t_plugins.py").write_text(PLUGINS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("t_", "_cpex_")):
            del sys.modules[name]
    import_module.cache_clear()
