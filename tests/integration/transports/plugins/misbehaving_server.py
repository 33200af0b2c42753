"""A program that a host takes for an MCP plugin server, and that is none. Its argument says how it goes wrong."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

CONFIG = {"name": "contract", "kind": "contract_plugin.ContractPlugin", "hooks": ["tool_pre_invoke"]}


def send(message: Any) -> None:
    """Write one line."""
    sys.stdout.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    sys.stdout.flush()


def result(id: int, value: Any) -> None:
    """Answer a request."""
    send({"jsonrpc": "2.0", "id": id, "result": value})


def text(id: int, value: str) -> None:
    """Answer a call of a tool."""
    result(id, {"content": [{"type": "text", "text": value}]})


def main(fault: str) -> None:
    """Behave until the tool is called, then not; or not even until then."""
    if fault == "exits":
        sys.exit("ModuleNotFoundError: No module named 'redis'")
    if fault == "chatty":
        for number in range(3):
            send(f"line {number} that is no message")
    for line in sys.stdin:
        message = json.loads(line)
        method, id = message["method"], message.get("id")
        if method == "initialize":
            version = "1999-01-01" if fault == "version" else "2025-06-18"
            if fault == "silent":
                continue
            info = {"name": "x", "version": "1"}
            result(id, {"protocolVersion": version, "capabilities": {}, "serverInfo": info})
        elif method == "tools/call" and message["params"]["name"] == "get_plugin_config":
            text(id, "no json" if fault == "config" else json.dumps(CONFIG))
        elif method == "tools/call":
            answer(fault, id)


def answer(fault: str, id: int) -> None:
    """Answer a hook, badly."""
    if fault == "truncated":
        sys.stdout.write('{"jsonrpc": "2.0", "id": ')
        sys.stdout.flush()
        sys.exit(3)
    if fault == "oversize":
        sys.stdout.write("x" * (17 * 1024 * 1024))
        sys.stdout.flush()
        time.sleep(60)
    if fault == "other-id":
        send({"jsonrpc": "2.0", "id": id + 1000, "result": {"content": []}})
        text(id, '{"result": {"continue_processing": false}}')
    if fault == "garbage":
        text(id, "<html>")
    if fault == "empty":
        result(id, {"content": []})
    if fault == "refuses":
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": "out of order"}})
    if fault == "closes":
        # Closing `sys.stdout` would leave the descriptor open.
        os.close(1)
        time.sleep(60)
    if fault == "closes and exits":
        os.close(1)
        time.sleep(0.5)
        sys.exit(3)
    if fault == "words":
        error = {"message": "session terminated, says the plugin", "plugin_name": "contract"}
        text(id, json.dumps({"error": error}))
    if fault == "asks":
        send({"jsonrpc": "2.0", "id": "s1", "method": "ping"})
        reply = json.loads(sys.stdin.readline())
        text(id, json.dumps({"result": {"metadata": {"reply": reply}}}))


if __name__ == "__main__":
    main(sys.argv[1])
