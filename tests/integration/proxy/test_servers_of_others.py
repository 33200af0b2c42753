"""Servers of the index and the registry behind the proxy: what they answer, what is rewritten, what is denied."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from integration.proxy.servers import TIMEOUT_S, Command, client_of, node_server, plugins, proxied, python_server

PII = """
plugins:
  - name: tools
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_list, tool_pre_invoke]
    config: {denied_tools: [git_reset, "write_*"]}
  - name: pii
    kind: privacy.PIIRedactionPlugin
    mode: transform
    hooks: [tool_pre_invoke, tool_post_invoke, resource_post_fetch]
"""


async def answers(command: Command, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    async with asyncio.timeout(TIMEOUT_S), client_of(command) as session:
        return [(await session.call_tool(name, args)).model_dump() for name, args in calls]


async def test_git_is_read_and_not_reset(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    (repository / "note.txt").write_text("call me", encoding="utf-8")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "Write to bob@example.com")):
        made = await asyncio.create_subprocess_exec("git", *words, cwd=repository)
        async with asyncio.timeout(TIMEOUT_S):
            assert await made.wait() == 0
    git = [*python_server("mcp-server-git"), "--repository", str(repository)]
    calls = [(name, {"repo_path": str(repository)}) for name in ("git_status", "git_log", "git_reset")]
    status, log, reset = await answers(proxied(git, plugins(tmp_path, PII)), *calls)
    assert status == (await answers(git, calls[0]))[0]
    text = log["content"][0]["text"]
    assert "Write to [EMAIL-REDACTED]" in text
    assert reset["is_error"]
    assert "TOOL_NOT_ALLOWED" in reset["content"][0]["text"]


async def test_time_is_told_the_same(tmp_path: Path) -> None:
    time = [*python_server("mcp-server-time"), "--local-timezone", "UTC"]
    call = ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"})
    before = await answers(time, call)
    behind = await answers(proxied(time, plugins(tmp_path, PII)), call)
    # It tells today's date, and midnight may pass in between.
    assert behind in (before, await answers(time, call))


async def test_arguments_reach_a_database_rewritten(tmp_path: Path) -> None:
    database = [*python_server("mcp-server-sqlite"), "--db-path", str(tmp_path / "notes.db")]
    _, found = await answers(
        proxied(database, plugins(tmp_path, PII)),
        ("create_table", {"query": "CREATE TABLE notes (text TEXT)"}),
        ("read_query", {"query": "SELECT 'ada@example.com' AS mail"}),
    )
    assert "ada@example.com" not in found["content"][0]["text"]
    # What the server itself was asked, which knows nothing of the proxy.
    [plain] = await answers(database, ("read_query", {"query": "SELECT count(*) AS n FROM notes"}))
    assert "0" in plain["content"][0]["text"]


async def test_a_failure_of_fetching_is_told_the_same(tmp_path: Path) -> None:
    fetch = [*python_server("mcp-server-fetch"), "--ignore-robots-txt"]
    call = ("fetch", {"url": "http://localhost:9/nothing"})
    async with asyncio.timeout(TIMEOUT_S), client_of(proxied(fetch, plugins(tmp_path, PII))) as session:
        assert [prompt.name for prompt in (await session.list_prompts()).prompts] == ["fetch"]
    # The redactor would mask the address that the failure names.
    assert await answers(proxied(fetch, plugins(tmp_path)), call) == await answers(fetch, call)


async def test_files_are_read_and_writing_is_hidden_and_denied(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.txt").write_text("mail ada@example.com", encoding="utf-8")
    files = [*node_server("server-filesystem"), str(folder)]
    async with asyncio.timeout(TIMEOUT_S), client_of(proxied(files, plugins(tmp_path, PII))) as session:
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert "write_file" not in names
        assert "read_text_file" in names
        read = await session.call_tool("read_text_file", {"path": str(folder / "a.txt")})
        assert read.structured_content == {"content": "mail [EMAIL-REDACTED]"}
        wrote = await session.call_tool("write_file", {"path": str(folder / "b.txt"), "content": "x"})
        assert wrote.is_error
    assert not (folder / "b.txt").exists()
