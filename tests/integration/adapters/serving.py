"""Applications that tests serve over HTTP from their own process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

__all__ = ["serving"]


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application on a port of 127.0.0.1, and give its address.

    Its clients are to leave before the block is left: the server waits until each of its connections has ended, so
    that none is left for the garbage collector to find in some other test.
    """
    # It listens already: whoever connects before the server has started is kept by the kernel.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, 60)
