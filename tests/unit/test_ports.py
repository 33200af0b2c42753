"""Ports that tests hand out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from ports import free_port

TELLS = "from ports import free_port; print(*(free_port() for _ in range(250))); input()"


def test_processes_are_handed_different_ports_and_none_twice_in_a_row() -> None:
    command = [sys.executable, "-c", TELLS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    own = {free_port() for _ in range(100)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = [int(word) for word in other.stdout.readline().split()]
        other.communicate("\n", timeout=60)
    assert len(own) == 100
    assert own.isdisjoint(theirs)
    assert own.isdisjoint(port + 1000 for port in theirs)


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        # As many as there are: every one of the block has its turn.
        assert port not in {free_port() for _ in range(250)}
