"""The server by which editors understand YAML, run for real, and what it says of a file.

Source: the Language Server Protocol 3.17, "Base Protocol", and the settings that the server's own page names.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from doc_blocks import ROOT

TIMEOUT_S = 120
_INSTALLED = ROOT / ".venv-editors" / "node_modules" / ".bin" / "yaml-language-server"
"""Where `make services` puts it."""


def server_command() -> list[str] | None:
    """How the server is started; `None` where it is not installed."""
    found = str(_INSTALLED) if _INSTALLED.exists() else shutil.which("yaml-language-server")
    return [found, "--stdio"] if found and shutil.which("node") else None


class Editor:
    """An editor with files open, as far as the server can tell."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._received: Queue[dict[str, Any]] = Queue()
        self._number = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(self, path: Path, text: str) -> list[dict[str, Any]]:
        """Open a file with a text; what is underlined, once the server has looked at it."""
        path.write_text(text, encoding="utf-8")
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        while True:
            message = self._next()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == path.as_uri():
                found: list[dict[str, Any]] = message["params"]["diagnostics"]
                return found

    def completions(self, path: Path, line: int, column: int) -> set[str]:
        """What is offered at a place, which is counted from 0."""
        place = {"textDocument": {"uri": path.as_uri()}, "position": {"line": line, "character": column}}
        return {item["label"] for item in self.request("textDocument/completion", place)["items"]}

    def hover(self, path: Path, line: int, column: int) -> str:
        """What is told about a place."""
        place = {"textDocument": {"uri": path.as_uri()}, "position": {"line": line, "character": column}}
        return str((self.request("textDocument/hover", place) or {"contents": {"value": ""}})["contents"]["value"])

    def request(self, method: str, params: Any) -> Any:
        """Ask, and wait for the answer."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            message = self._next()
            if message.get("id") == self._number and "method" not in message:
                assert "error" not in message, message["error"]
                return message["result"]

    def notify(self, method: str, params: Any) -> None:
        """Tell."""
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _next(self) -> dict[str, Any]:
        try:
            message = self._received.get(timeout=TIMEOUT_S)
        except Empty:
            raise AssertionError(f"the server said nothing for {TIMEOUT_S} s") from None
        if message.get("method") == "workspace/configuration":
            # Its own settings, one answer for each that it asks for.
            asked = [{"validate": True, "completion": True, "hover": True} for _ in message["params"]["items"]]
            self._send({"id": message["id"], "result": asked})
        elif "id" in message and "method" in message:
            self._send({"id": message["id"], "result": None})
        return message

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while header := stream.readline():
            if header.lower().startswith(b"content-length:"):
                length = int(header.partition(b":")[2])
                while stream.readline().strip():
                    pass
                self._received.put(json.loads(stream.read(length)))


@contextmanager
def editor(command: list[str], folder: Path) -> Iterator[Editor]:
    """A server that has been started for a folder, and ends with the block."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder) as process:
        try:
            found = Editor(process)
            found.request("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
            found.notify("initialized", {})
            yield found
            found.request("shutdown", None)
            found.notify("exit", None)
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
