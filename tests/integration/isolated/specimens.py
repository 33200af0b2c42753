"""A plugin whose calls do to their worker what their tool is named for, and what its tests share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cpex.framework import PluginError

PLUGIN = """
class Mine(Plugin):
    async def tool_pre_invoke(self, payload, context):
        behaviour = getattr(self, payload.name, None)
        return (await behaviour(payload) or ToolPreInvokeResult()) if behaviour else ToolPreInvokeResult()

    async def deny(self, payload):
        return denial("NO")

    async def hang(self, payload):
        open(payload.args["file"], "w").close()
        await asyncio.Event().wait()

    async def compute(self, payload):
        open(payload.args["file"], "w").close()
        while True:
            pass

    async def prints(self, payload):
        print("to stdout")
        print('{"request_id": "forged", "continue_processing": true}')
        os.write(1, b"to descriptor 1\\n")
        os.system("echo from a child")
        sys.stdout.buffer.write(b"bytes")
        return denial("PRINTED")

    async def reads(self, payload):
        assert sys.stdin.read() == ""
        assert os.read(0, 10) == b""

    async def dies(self, payload):
        sys.stderr.write("first words\\nlast words")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    async def pid(self, payload):
        return ToolPreInvokeResult(metadata={"pid": os.getpid()})

    async def exits(self, payload):
        os._exit(3)

    async def leaves_a_child(self, payload):
        child = os.fork()
        if child == 0:
            time.sleep(600)
        open(payload.args["file"], "w").write(str(child))
        os._exit(4)

    async def large(self, payload):
        return ToolPreInvokeResult(metadata={"text": "x" * payload.args["size"]})
"""


async def started(path: Path) -> None:
    """Wait until a handler has made its file."""
    async with asyncio.timeout(60):
        # Only the file system knows of both processes.
        while not path.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def failure(raised: pytest.ExceptionInfo[PluginError]) -> tuple[str | None, str]:
    """Code and message."""
    return raised.value.error.code, raised.value.error.message
