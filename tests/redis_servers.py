"""Redis servers of the tests' own: on a free port, in a directory of their own, killed at the end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_DATABASES = 1_000
_ATTEMPTS = 3


class RedisServer:
    """A server that was started, and can be killed and started again on the same port."""

    def __init__(self, directory: Path, binary: str, options: Sequence[str] = (), *, tls: bool = False) -> None:
        self._directory = directory
        self._binary = binary
        self._options = options
        self._port_option = "--tls-port" if tls else "--port"
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def fresh_url(self) -> str:
        """The URL of a database that nobody else was given."""
        return f"redis://127.0.0.1:{self.port}/{next(self._numbers)}"

    def start(self) -> None:
        """Start, and wait until it says that it accepts connections."""
        arguments = [
            self._port_option,
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._directory),
            *self._options,
        ]
        arguments += ["--save", "", "--appendonly", "no", "--logfile", ""]
        self._process = subprocess.Popen([self._binary, *arguments], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        last = "it said nothing"
        for line in self._process.stdout:
            if b"eady to accept connections" in line:
                return
            last = line.decode(errors="replace").strip()
        raise RuntimeError(f"redis-server ended with status {self._process.wait()} before it was ready: {last}")

    def start_anywhere(self) -> None:
        """Start, on another port if somebody was quicker to take the first."""
        for _ in range(_ATTEMPTS):
            try:
                return self.start()
            except RuntimeError:
                self.kill()
                self.port = free_port()
        return self.start()

    def form_cluster(self) -> None:
        """Make a server with `--cluster-enabled yes` a cluster of one, and wait until it serves every key."""
        self._ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline_s = time.monotonic() + 30
        while "cluster_state:ok" not in self._ask("CLUSTER", "INFO"):
            assert time.monotonic() < deadline_s, "the cluster did not form"

    def _ask(self, *words: str) -> str:
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running_redis(*options: str, tls: bool = False) -> Iterator[RedisServer]:
    """A running server; skips the test, with the reason, where there is no such program or library."""
    pytest.importorskip("redis", reason="the library `redis` is not installed")
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("`redis-server` is not installed (apt-get install redis-server)")
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), binary, ["--databases", str(_DATABASES), *options], tls=tls)
        try:
            server.start_anywhere()
            yield server
        finally:
            server.kill()
