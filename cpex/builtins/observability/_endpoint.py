"""A scrape endpoint that several plugins of one process may share: the port is the process's, not a manager's."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry


MAX_PORT = 65_535


class Endpoint:
    """An HTTP server that answers with the metrics of one registry, until its last user closes it."""

    def __init__(self, address: str, port: int, registry: CollectorRegistry) -> None:
        """Listen, in a thread of the Prometheus client's.

        Raises:
            OSError: The address or port cannot be had.
        """
        from prometheus_client import start_http_server

        self._server: WSGIServer
        self._server, self._thread = start_http_server(port, address, registry)
        self.registry = registry
        self.users = 0
        self._pid = os.getpid()

    @property
    def is_own(self) -> bool:
        """Whether this process listens, and not the one that it was forked off from."""
        return self._pid == os.getpid()

    @property
    def port(self) -> int:
        """The port that is listened on, also when any free one was asked for."""
        return int(self._server.server_port)

    def stop(self) -> None:
        """Stop listening and wait for the thread to end. A forked child only lets go of what it inherited."""
        if not self.is_own:
            # The thread is the parent's, which goes on listening: to wait for it would be to wait for ever.
            self._server.socket.close()
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_lock = threading.Lock()
_endpoints: dict[tuple[str, int], Endpoint] = {}


def open_endpoint(address: str, port: int, registry: CollectorRegistry) -> Endpoint:
    """Use the endpoint at an address, starting it if nobody does yet. Port 0 is a free port, and never shared.

    Raises:
        OSError: The address or port cannot be had.
        ValueError: This process serves another registry there.
    """
    with _lock:
        endpoint = _endpoints.get((address, port)) if port else None
        if endpoint is None or not endpoint.is_own:
            endpoint = Endpoint(address, port, registry)
            _endpoints[address, endpoint.port] = endpoint
        elif endpoint.registry is not registry:
            raise ValueError(f"port {port} of {address} serves another registry of this process")
        endpoint.users += 1
        return endpoint


def open_first_endpoint(address: str, ports: range, registry: CollectorRegistry) -> Endpoint:
    """Use the endpoint at the first of several ports that serves nobody else; see `open_endpoint`."""
    for port in ports[:-1]:
        try:
            return open_endpoint(address, port, registry)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        # It serves another registry of this process.
        except ValueError:
            pass
    return open_endpoint(address, ports[-1], registry)


def close_endpoint(endpoint: Endpoint) -> None:
    """Stop using an endpoint; the last user ends it. Blocks while it ends."""
    with _lock:
        endpoint.users -= 1
        if endpoint.users:
            return
        for key in [key for key, each in _endpoints.items() if each is endpoint]:
            del _endpoints[key]
        endpoint.stop()
