"""The file of servers: what it may say, and how mistakes in it are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpex.framework.settings import settings
from cpex.proxy import ChildUpstream, UrlUpstream, read_servers


@pytest.fixture
def protection(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The protection against private addresses is on, whatever this machine's variables say; and a way to change it."""
    monkeypatch.delenv("PLUGINS_SSRF_PROTECTION_ENABLED", raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def written(folder: Path, document: Any) -> Path:
    path = folder / "servers.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_servers_are_read_in_their_order_and_disabled_ones_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    servers = {
        "b": {"type": "stdio", "command": "run", "args": ["-x"], "env": {"KEY": "1"}, "cwd": "/srv", "autoApprove": []},
        "off": {"command": "run", "disabled": True},
        "a": {"type": "http", "url": "https://a.example.com/mcp", "headers": {"Authorization": "Bearer hunter2"}},
    }
    child, remote = read_servers(written(tmp_path, {"mcpServers": servers}))
    assert isinstance(child, ChildUpstream)
    assert isinstance(remote, UrlUpstream)
    assert (child.name, child.command.words, child.command.cwd) == ("b", ("run", "-x"), "/srv")
    assert child.command.env["KEY"] == "1"
    assert "AWS_SECRET_ACCESS_KEY" not in child.command.env
    assert remote.headers == {"Authorization": "Bearer hunter2"}
    assert "hunter2" not in repr(remote)
    assert caplog.messages == [
        "mcpServers.b.autoApprove: is for the client that the file was written for, and left out here"
    ]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{", "is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ([], 'names no server; write {"mcpServers": {"name": {"command": "..."}}}'),
        ({"mcpServers": {}}, 'names no server; write {"mcpServers": {"name": {"command": "..."}}}'),
        ({"mcpServers": {"a": 1}}, "mcpServers.a: is no object"),
        ({"mcpServers": {"a": {"comand": "x"}}}, "mcpServers.a.comand: unknown key; did you mean `command`?"),
        ({"mcpServers": {"a": {}}}, "mcpServers.a.command: is missing, not a text"),
        ({"mcpServers": {"a": {"command": "x", "args": "-y"}}}, "mcpServers.a.args: is of another kind (`str`)"),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}, "mcpServers.a.env: is of another kind (`dict`)"),
        ({"mcpServers": {"a": {"url": "ftp://x"}}}, "mcpServers.a.url: `ftp://x` is no address of a server"),
        ({"mcpServers": {"a__b": {"command": "x"}}}, "mcpServers.a__b: a name has letters, digits"),
        ({"mcpServers": {"a": {"command": "x", "disabled": True}}}, "every server is disabled"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, document: Any, told: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(ValueError) as caught:
        read_servers(path)
    assert f"{path}: {told}" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, {"mcpServers": {"a": {"comand": "x"}, "b": {"url": 1}}})
    with pytest.raises(ValueError) as caught:
        read_servers(path)
    assert len(str(caught.value).splitlines()) == 3


def test_a_server_in_whose_place_the_proxy_stands_gets_the_environment_meant_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "t")
    monkeypatch.setenv("PLUGINS_REDIS_PASSWORD", "p")
    env = ChildUpstream.instead_of("server", ["run"]).command.env
    assert env["GITHUB_TOKEN"] == "t"
    assert not any(name.startswith("PLUGINS_") for name in env)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:10.0.0.1]", "100.64.0.1"]
)
def test_an_address_in_any_notation_is_judged_before_the_first_request(
    protection: pytest.MonkeyPatch, host: str
) -> None:
    upstream = UrlUpstream("a", f"http://{host}:8000/mcp")
    with pytest.raises(
        ValueError, match=r"^cannot reach http://.* leads to .* address, which is blocked by SSRF"
    ) as raised:
        upstream.check()
    assert ("write `localhost`" in str(raised.value)) == ("loopback" in str(raised.value))
    protection.setenv("PLUGINS_SSRF_PROTECTION_ENABLED", "false")
    settings.cache_clear()
    upstream.check()


@pytest.mark.parametrize(
    "host", ["localhost", "8.8.8.8", "[2606:4700:4700::1111]", "tools.invalid", "10.0.0.1.invalid"]
)
def test_a_public_address_and_a_name_are_left_for_the_first_request(protection: pytest.MonkeyPatch, host: str) -> None:
    UrlUpstream("a", f"http://{host}/mcp").check()
