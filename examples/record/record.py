"""Record an agent's tool calls against real tool servers, as a stream of events that `cpex run` reads.

Every conversation gets the shop as it was in the beginning, and servers of its own that are spoken to over stdio. Each
call becomes two events: what was asked (`tool_pre_invoke`) and what came back (`tool_post_invoke`), unedited. No plugin
runs while recording.

Usage: `python record.py OUT.jsonl --servers DIR --sqlite-server FILE`, see README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import agent
import world
from mcp import ClientSession, StdioServerParameters, stdio_client

AT_ONCE = 3
"""Conversations that are under way at the same time, so that their events mix as real traffic does."""
USERS = ("lena.support", "omar.support", "ines.ops", "tess.support")


@dataclass
class Tape:
    """The events in the order in which they happened, and the words that must not be among them."""

    forbidden: tuple[str, ...]
    lines: list[str] = field(default_factory=list)

    def add(self, event: dict[str, Any]) -> None:
        """Keep one event.

        Raises:
            ValueError: The event tells a path or a name of the machine it was recorded on.
        """
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        for word in self.forbidden:
            if word in line:
                raise ValueError(f"an event of session `{event['session']}` tells `{word}`, which is of this machine")
        self.lines.append(line)


@dataclass
class RecordedTools:
    """Sends each call to the server that has the tool, and puts it on the tape."""

    tape: Tape
    session: str
    user: str
    site: str
    owners: dict[str, tuple[str, ClientSession]] = field(default_factory=dict)
    calls: int = 0

    async def __call__(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call one tool and record what was asked and what came back."""
        self.calls += 1
        server, client = self.owners[name]
        context = {"request_id": f"{self.session}-{self.calls:02d}", "user": self.user, "server_id": server}
        self._record("tool_pre_invoke", context, {"name": name, "args": arguments})
        answer = await client.call_tool(name, arguments)
        result: dict[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._record("tool_post_invoke", context, {"name": name, "result": result})
        return result

    def _record(self, hook: str, context: dict[str, Any], payload: dict[str, Any]) -> None:
        ts = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.tape.add({"v": 1, "ts": ts, "hook": hook, "session": self.session, "context": context, "payload": payload})


@dataclass(frozen=True)
class Servers:
    """Where the servers' programs are."""

    folder: Path
    sqlite: Path

    def commands(self) -> dict[str, list[str]]:
        """Server name -> command line. All paths in it that a server could repeat are relative."""
        return {
            "time": [str(self.folder / "mcp-server-time"), "--local-timezone", "Etc/UTC"],
            "git": [str(self.folder / "mcp-server-git"), "--repository", "shop"],
            "fetch": [str(self.folder / "mcp-server-fetch"), "--ignore-robots-txt", "--allow-private-ips"],
            "sqlite": [str(self.sqlite), "--db-path", "crm.db"],
        }


async def converse(talk: agent.Conversation, tools: RecordedTools, servers: Servers, place: Path, seed: int) -> None:
    """Hold one conversation with servers started for it alone, in a folder of its own."""
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "TZ": "UTC", "PYTHONWARNINGS": "ignore"}
    async with AsyncExitStack() as stack:
        for name, (command, *words) in servers.commands().items():
            parameters = StdioServerParameters(command=command, args=words, env=env, cwd=place)
            errors = stack.enter_context((place / f"{name}.log").open("w", encoding="utf-8"))
            streams = await stack.enter_async_context(stdio_client(parameters, errlog=errors))
            client = await stack.enter_async_context(ClientSession(*streams))
            await client.initialize()
            tools.owners.update({tool.name: (name, client) for tool in (await client.list_tools()).tools})
        await talk(tools, random.Random(seed))


@contextmanager
def web_site(folder: Path) -> Iterator[str]:
    """Serve `folder` on this machine and yield the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


async def record(servers: Servers, root: Path) -> list[str]:
    """Hold all conversations, a few at a time, and return the events as lines."""
    template = root / "template"
    template.mkdir()
    world.make_database(template / "crm.db")
    world.make_repository(template / "shop")
    world.make_site(root / "site")
    tape = Tape((str(root), str(servers.folder), str(Path.home()), socket.gethostname()))
    talks = [talk for talk, times in agent.CONVERSATIONS for _ in range(times)]
    random.Random(11).shuffle(talks)
    gate = asyncio.Semaphore(AT_ONCE)
    with web_site(root / "site") as site:

        async def one(number: int, talk: agent.Conversation) -> None:
            async with gate:
                place = root / f"session-{number:02d}"
                shutil.copytree(template, place)
                tools = RecordedTools(tape, f"shop-{number:02d}", USERS[number % len(USERS)], site)
                await converse(talk, tools, servers, place, seed=number)

        async with asyncio.TaskGroup() as group:
            for number, talk in enumerate(talks, start=1):
                group.create_task(one(number, talk))
    return tape.lines


def main() -> None:
    """Read the command line, record, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--servers", type=Path, required=True, help="folder with mcp-server-time, -git and -fetch")
    parser.add_argument("--sqlite-server", type=Path, required=True, help="the program mcp-server-sqlite")
    options = parser.parse_args()
    servers = Servers(options.servers.absolute(), options.sqlite_server.absolute())
    with tempfile.TemporaryDirectory() as folder:
        lines = asyncio.run(record(servers, Path(folder)))
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
