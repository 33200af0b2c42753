"""A server that misbehaves as its tools are called: JSON lines on standard input and output, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def call(id: Any, name: str, args: dict[str, Any]) -> None:
    if name == "die":
        sys.stderr.write("out of memory\n")
        sys.stderr.flush()
        os._exit(3)
    if name == "hang":
        return
    if name == "twice":
        send({"id": id, "result": {"content": [{"type": "text", "text": "first"}]}})
        send({"id": id, "result": {"content": [{"type": "text", "text": "second"}]}})
        send({"id": 12345, "result": {"content": [{"type": "text", "text": "nobody asked"}]}})
        return
    if name == "says":
        for each in args["messages"]:
            send(each)
    if name == "noise":
        sys.stdout.write("this is no message\n[]\n")
    if name == "child":
        # Outlives its parent, unless somebody ends the whole group.
        held = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        args = {"pid": held.pid}
    if name == "half":
        send({"id": id, "result": {"content": [{"type": "text", "text": "cut \ud83d"}], "args": args}})
        return
    if name == "typed":
        send({"id": id, "result": {"content": [], **args} if "content" not in args and len(args) == 1 else args})
        return
    if name == "no-result":
        send({"id": id, "result": None})
        return
    send({"id": id, "result": {"content": [{"type": "text", "text": json.dumps({"name": name, "args": args})}]}})


def main() -> None:
    sent: list[Any] = []
    for line in sys.stdin:
        message = json.loads(line)
        method, params, id = message.get("method"), message.get("params") or {}, message.get("id")
        if method == "initialize":
            about = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
            send({"id": id, "result": {**about, "serverInfo": {"name": "breaking", "version": "1"}, "custom": [1]}})
        elif method == "tools/call" and params["name"] == "heard":
            call(id, "heard", {"heard": sent})
        elif method == "tools/call":
            sent.append(message)
            call(id, params["name"], params.get("arguments") or {})
        else:
            sent.append(message)
            if id is not None:
                code = -32601 if method == "server/discover" else -32000
                send({"id": id, "error": {"code": code, "message": "nothing else here", "data": {"deep": [1]}}})


main()
