"""The command line: `python -m benchmarks.proxy [--calls N] [--rounds N] [--sessions N] [--memory-calls N]`.

The question: what does the proxy add to a call, over pipes and over HTTP, beside a bare one of the same library? All
ways are open at once and take turns, round after round, so that a busy machine is busy for all; one caller, one call at
a time. Then many sessions at once, and the memory of a proxy over many calls. The client is the SDK's in every row.
Exit codes: 0 measured, 1 something was not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import httpx2
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.ports import free_port

PARTS = [sys.executable, "-m", "benchmarks.proxy.parts"]
ARGUMENTS = {"text": "write to ada@example.com about the invoice of last week"}
PLUGINS = """
plugins:
  - name: tools
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_list, tool_pre_invoke]
    config: {allowed_tools: [echo]}
  - name: pii
    kind: privacy.PIIRedactionPlugin
    mode: transform
    hooks: [tool_pre_invoke, tool_post_invoke]
"""
CONFIGS = {"no plugins": "plugins: []\n", "allow list and redactor": PLUGINS}
READY_S, WARM_UP = 60, 50


def proxy(config: Path, *words: str) -> list[str]:
    """The command that starts ours."""
    return [sys.executable, "-m", "cpex.tools.cli", "proxy", "-c", str(config), "-l", "ERROR", *words]


@asynccontextmanager
async def listening(command: list[str], port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that serves HTTP at a port."""
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(READY_S), httpx2.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
        yield process
    finally:
        process.terminate()
        await process.wait()


async def over_pipes(stack: AsyncExitStack, command: list[str]) -> ClientSession:
    """A session with a process of its own."""
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    streams = await stack.enter_async_context(stdio_client(parameters))
    return await _shaken(stack, streams)


async def over_http(stack: AsyncExitStack, port: int) -> ClientSession:
    """A session with whatever listens at a port."""
    streams = await stack.enter_async_context(streamable_http_client(f"http://127.0.0.1:{port}/mcp"))
    return await _shaken(stack, streams)


async def _shaken(stack: AsyncExitStack, streams: tuple[Any, Any]) -> ClientSession:
    session = await stack.enter_async_context(ClientSession(*streams))
    await session.initialize()
    return session


async def timed(session: ClientSession, count: int) -> list[float]:
    """Milliseconds of each of some calls."""
    times = []
    for _ in range(count):
        start = perf_counter()
        await session.call_tool("echo", ARGUMENTS)
        times.append((perf_counter() - start) * 1000)
    return times


async def compared(title: str, sessions: dict[str, ClientSession], calls: int, rounds: int) -> None:
    """Print a table: median and 99th percentile of each way, and what it adds to the direct one."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in sessions}
    for session in sessions.values():
        await timed(session, WARM_UP)
    for _ in range(rounds):
        for name, session in sessions.items():
            times = await timed(session, calls)
            figures[name].append((median(times), quantiles(times, n=100)[98]))
    print(f"\n{title}: {rounds} rounds of {calls} calls, milliseconds\n")
    print("| way | p50 | p99 | p50 added | p99 added |\n|---|---|---|---|---|")
    direct = figures["direct"]
    for name, measured in figures.items():
        p50, p99 = (median(each[i] for each in measured) for i in (0, 1))
        added = [median(one[i] - other[i] for one, other in zip(measured, direct, strict=True)) for i in (0, 1)]
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {added[0]:.2f} | {added[1]:.2f} |", flush=True)


async def pipes(folder: Path, calls: int, rounds: int) -> None:
    """Over pipes on both sides."""
    echo = [*PARTS, "echo-pipes"]
    async with AsyncExitStack() as stack:
        sessions = {"direct": await over_pipes(stack, echo)}
        sessions["bare proxy"] = await over_pipes(stack, [*PARTS, "bare-pipes", *echo])
        for name in CONFIGS:
            sessions[f"cpex proxy, {name}"] = await over_pipes(stack, proxy(folder / name, "--", *echo))
        await compared("Over pipes", sessions, calls, rounds)


async def http(folder: Path, calls: int, rounds: int, many: int) -> None:
    """Over HTTP on both sides."""
    ports = {name: free_port() for name in ("direct", "bare proxy", *CONFIGS)}
    # The one name that the proxy takes for this machine.
    url = f"http://localhost:{ports['direct']}/mcp"
    commands = {
        "direct": [*PARTS, "echo-http", str(ports["direct"])],
        "bare proxy": [*PARTS, "bare-http", str(ports["bare proxy"]), url],
        **{name: proxy(folder / name, "--url", url, "--listen", f"127.0.0.1:{ports[name]}") for name in CONFIGS},
    }
    async with AsyncExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            processes[name] = await stack.enter_async_context(listening(command, ports[name]))
        async with AsyncExitStack() as clients:
            sessions = {
                name if name not in CONFIGS else f"cpex proxy, {name}": await over_http(clients, port)
                for name, port in ports.items()
            }
            await compared("Over HTTP", sessions, calls, rounds)
        print(f"\n{many} sessions at once over HTTP, 10 calls each\n")
        print("| way | calls per second | p50, ms | p99, ms | memory of the proxy, MiB |\n|---|---|---|---|---|")
        for name in ports:
            before = memory_of(processes[name].pid)
            start = perf_counter()
            times = [time for each in await asyncio.gather(*(_one(ports[name]) for _ in range(many))) for time in each]
            rate, after = len(times) / (perf_counter() - start), memory_of(processes[name].pid)
            p50, p99 = median(times), quantiles(times, n=100)[98]
            print(
                f"| {name} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {before:.0f} before, {after:.0f} after |", flush=True
            )


async def _one(port: int) -> list[float]:
    async with AsyncExitStack() as stack:
        return await timed(await over_http(stack, port), 10)


async def memory(folder: Path, calls: int) -> None:
    """What a proxy holds on to: its resident memory as calls go by, over pipes."""
    print(f"\nMemory of one proxy with plugins, over pipes, {calls} calls\n\n| calls | MiB |\n|---|---|")
    async with AsyncExitStack() as stack:
        before = children_of(os.getpid())
        command = proxy(folder / "allow list and redactor", "--", *PARTS, "echo-pipes")
        session = await over_pipes(stack, command)
        [pid] = children_of(os.getpid()) - before
        done = 0
        for step in (calls // 100, calls // 10, calls // 2, calls):
            while done < step:
                await asyncio.gather(*(session.call_tool("echo", ARGUMENTS) for _ in range(50)))
                done += 50
            print(f"| {done} | {memory_of(pid):.1f} |", flush=True)


def memory_of(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children_of(pid: int) -> set[int]:
    """Processes that a process has started."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.add(int(status.parent.name))
    return found


async def run(arguments: argparse.Namespace) -> None:
    """Measure everything that was asked for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for config, text in CONFIGS.items():
            (folder / config).write_text(text, encoding="utf-8")
        await pipes(folder, arguments.calls, arguments.rounds)
        await http(folder, arguments.calls, arguments.rounds, arguments.sessions)
        if arguments.memory_calls:
            await memory(folder, arguments.memory_calls)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="calls of a round, at least 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--memory-calls", type=int, default=100_000, help="0 leaves memory out")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
