"""Redis and Valkey servers of the tests' own: on a free port, in a directory of their own, killed at the end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, permutations
from pathlib import Path

import pytest
from ports import free_port

PATIENT = "?socket_timeout=60&socket_connect_timeout=60"
"""At the end of a URL: a store that waits for its server as long as a busy machine may take."""
_DATABASES = 1_000
_ATTEMPTS = 3
PROGRAMS = ("redis-server", "valkey-server")
"""The makes of server that the store speaks to, each by the name of its program."""
_SLOTS = 16_384
# The rest of a cluster serves its keys while a part is away. On a busy machine nodes are silent for seconds: none is
# given up for that, and a replica stands in for its master however long it has not heard of it.
_PATIENCE_MS, _IMPATIENCE_MS = "60000", "2000"
_CLUSTER_OPTIONS = ["--cluster-enabled", "yes", "--cluster-node-timeout", _PATIENCE_MS, "--databases", "1"]
_CLUSTER_OPTIONS += ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]
_CLUSTER_OPTIONS += ["--cluster-replica-validity-factor", "0"]
_WHERE = {
    "redis-server": "apt-get install redis-server",
    "valkey-server": "apt-get install valkey-server, on Debian 12 from its backports",
}


class RedisServer:
    """A server that was started, and can be killed and started again on the same port."""

    def __init__(
        self, directory: Path, binary: str, options: Sequence[str] = (), *, tls: bool = False, bus: bool = False
    ) -> None:
        self._directory = directory
        self._binary = binary
        self._options = options
        self._port_option = "--tls-port" if tls else "--port"
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        # By default the bus takes the port's number and 10,000, which may be no port at all.
        self.bus_port = free_port() if bus else None

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
        if self.bus_port is not None:
            arguments += ["--cluster-port", str(self.bus_port)]
        arguments += ["--save", "", "--appendonly", "no", "--logfile", ""]
        self._process = subprocess.Popen([self._binary, *arguments], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        last = "it said nothing"
        for line in self._process.stdout:
            if b"eady to accept connections" in line:
                return
            last = line.decode(errors="replace").strip()
        raise RuntimeError(f"{self._binary} ended with status {self._process.wait()} before it was ready: {last}")

    def start_anywhere(self) -> None:
        """Start, on another port if somebody was quicker to take the first."""
        for _ in range(_ATTEMPTS):
            try:
                return self.start()
            except RuntimeError:
                self.kill()
                self.port = free_port()
                self.bus_port = free_port() if self.bus_port is not None else None
        return self.start()

    def ask(self, *words: str) -> str:
        """What the server answers to a command."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class RedisCluster:
    """Masters that share the slots evenly, the first of them with a replica."""

    def __init__(self, masters: list[RedisServer], replica: RedisServer) -> None:
        self.masters = masters
        self.replica = replica
        self._numbers = count()

    @property
    def url(self) -> str:
        """Names the second master, so that the first may be killed; from it a client learns of the others."""
        return f"redis+cluster://127.0.0.1:{self.masters[1].port}"

    def fresh_prefix(self) -> str:
        """A prefix of keys that nobody else was given: a cluster has one database."""
        return f"p{next(self._numbers)}"

    def form(self) -> None:
        """Give out the slots, introduce all to one another, and wait until all agree."""
        first, *others = self.masters
        size = _SLOTS // len(self.masters)
        for number, master in enumerate(self.masters):
            last = _SLOTS if master is self.masters[-1] else (number + 1) * size
            master.ask("CLUSTER", "ADDSLOTSRANGE", str(number * size), str(last - 1))
        nodes = (first, *others, self.replica)
        # Each meets each: what they would tell of one another by and by, they know at once.
        for one, other in permutations(nodes, 2):
            one.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus_port))
        self._await(f"cluster_known_nodes:{len(self.masters) + 1}", self.replica)
        name = first.ask("CLUSTER", "MYID").strip()
        _repeat(lambda: "OK" in self.replica.ask("CLUSTER", "REPLICATE", name), "the replica does not know its master")
        self._await_service(*self.masters, self.replica)
        _repeat(lambda: "master_link_status:up" in self.replica.ask("INFO", "replication"), "the replica did not sync")

    def give(self, key: str, receiver: RedisServer) -> None:
        """Let another node have the slot of a key that no node has."""
        slot, name = receiver.ask("CLUSTER", "KEYSLOT", key).strip(), receiver.ask("CLUSTER", "MYID").strip()
        for master in (receiver, *self.masters):
            master.ask("CLUSTER", "SETSLOT", slot, "NODE", name)
        # What the last owner has said before does not count any more.
        receiver.ask("CLUSTER", "BUMPEPOCH")

    def await_replication(self) -> None:
        """Wait until the replica has all that its master was told; a master answers before that."""
        told = _offset(self.masters[0], "master_repl_offset")
        _repeat(lambda: _offset(self.replica, "slave_repl_offset") >= told, "the replica does not follow its master")

    def await_failover(self) -> None:
        """Wait until the replica has taken its master's place."""
        survivors = (*self.masters[1:], self.replica)
        for node in survivors:
            node.ask("CONFIG", "SET", "cluster-node-timeout", _IMPATIENCE_MS)
        _repeat(lambda: "role:master" in self.replica.ask("INFO", "replication"), "the replica did not take over")
        self._await_service(*survivors)
        for node in survivors:
            node.ask("CONFIG", "SET", "cluster-node-timeout", _PATIENCE_MS)

    def kill(self) -> None:
        """End all of them at once."""
        for node in (*self.masters, self.replica):
            node.kill()

    def _await_service(self, *nodes: RedisServer) -> None:
        self._await(f"cluster_slots_ok:{_SLOTS}", *nodes)
        self._await("cluster_state:ok", *nodes)

    def _await(self, state: str, *nodes: RedisServer) -> None:
        _repeat(lambda: all(state in node.ask("CLUSTER", "INFO") for node in nodes), "the cluster did not form")


def _repeat(holds: Callable[[], bool], message: str) -> None:
    """Ask until it holds: nodes tell one another things when they please."""
    deadline_s = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline_s, message


def _offset(node: RedisServer, field: str) -> int:
    lines = node.ask("INFO", "replication").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith(f"{field}:"))


@contextmanager
def running_cluster(program: str = "redis-server") -> Iterator[RedisCluster]:
    """Three masters and a replica, each a process; skips the test where there is no such program or library."""
    binary = _program(program)
    with tempfile.TemporaryDirectory() as directory:
        nodes = []
        try:
            for number in range(4):
                home = Path(directory) / str(number)
                home.mkdir()
                nodes.append(node := RedisServer(home, binary, _CLUSTER_OPTIONS, bus=True))
                node.start_anywhere()
            cluster = RedisCluster(nodes[:3], nodes[3])
            cluster.form()
            yield cluster
        finally:
            for node in nodes:
                node.kill()


@contextmanager
def running_redis(*options: str, tls: bool = False, program: str = "redis-server") -> Iterator[RedisServer]:
    """A running server; skips the test, with the reason, where there is no such program or library."""
    binary = _program(program)
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), binary, ["--databases", str(_DATABASES), *options], tls=tls)
        try:
            server.start_anywhere()
            yield server
        finally:
            server.kill()


def _program(name: str) -> str:
    pytest.importorskip("redis", reason="the library `redis` is not installed")
    binary = shutil.which(name)
    if binary is None:
        pytest.skip(f"`{name}` is not installed ({_WHERE[name]})")
    return binary
