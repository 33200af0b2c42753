"""The guard for code without an event loop.

Plugins run on an event loop in a thread of the guard's own. The operation itself runs in the caller's thread, between
the hooks, as it would without a guard: thread-locals, connections and stack traces are the caller's.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self, Unpack

from cpex.framework.errors import GuardError
from cpex.framework.guard.decorator import Call
from cpex.framework.guard.facts import RequestFacts
from cpex.framework.guard.operations import TOOL, Kind
from cpex.framework.guard.request import Request
from cpex.framework.guard.thread_call import JOIN_S, ThreadCall

if TYPE_CHECKING:
    from types import TracebackType

    from cpex.framework.manager import PluginManager

__all__ = ["SyncGuard", "SyncRequest", "current_sync_request"]

current_sync_request: ContextVar[SyncRequest | None] = ContextVar("cpex_sync_request", default=None)
"""The request that is open in this thread's context."""


class SyncGuard:
    """A manager on an event loop of its own, for any number of threads.

        with SyncGuard(TenantPluginManager("plugins.yaml")) as guard, guard.request(user="ann") as request:
            result = request.call_tool("search", {"q": "tea"}, search)

    Entering starts the plugins; leaving shuts them down, ends the thread, and lets calls that are under way fail.
    """

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread and the plugins; does nothing when they run.

        Raises:
            PluginLoadError: A plugin could not be started; the thread has ended.
        """
        if self._loop is not None:
            return
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="cpex-guard", daemon=True)
        self._thread.start()
        try:
            self.run(self.manager.initialize())
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """Shut the plugins down and end the thread; does nothing when that is done."""
        if self._loop is None:
            return
        try:
            self.run(self.manager.shutdown())
        finally:
            self._stop()

    def request(self, **facts: Unpack[RequestFacts]) -> SyncRequest:
        """Open a request; see `PluginManager.request`."""
        return SyncRequest(self, self.manager.request(**facts))

    def guarded(
        self, kind: Kind = TOOL, *, name: str | None = None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make a function that is called through the guard; see `cpex.framework.guard.decorator.guarded`.

        It runs in the request that is open in the caller's context, else in one of its own.
        """

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            bound = Call(function, kind, name)

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                if (request := current_sync_request.get()) is not None:
                    return bound.within(request, args, kwargs)
                with self.request() as own:
                    return bound.within(own, args, kwargs)

            return call

        return decorate

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the guard's loop and wait for its result.

        Raises:
            GuardError: The guard is not running here, or was closed meanwhile.
        """
        try:
            return self.drive(lambda _: work)
        finally:
            # Does nothing to one that has run.
            work.close()

    def drive(self, begin: Callable[[ThreadCall], Awaitable[Any]]) -> Any:
        """Run what `begin` gives on the loop, and in this thread the functions that it hands over.

        Raises:
            GuardError: The guard does not run in this process, was closed meanwhile, or was called on an event loop.
            BaseException: Whatever the work raises, or an interrupt of this thread. The work has ended by then.
        """
        if asyncio._get_running_loop() is not None:
            raise GuardError(
                "a guard without an event loop was called on one, and would stop it; use `async with "
                "manager.request(...)` there"
            )
        call: ThreadCall | None = None
        try:
            # INVARIANT: what begins while the lock is free begins before the loop is told to stop, and so comes to an
            # end.
            with self._lock:
                if self._loop is None or self._process != os.getpid():
                    raise GuardError(
                        "the guard is not running in this process; enter it with `with SyncGuard(manager) as guard:`, "
                        "in each process after forking"
                    )
                call = ThreadCall(self._loop, begin)
                call.start()
            return call.wait()
        except BaseException:
            # An interrupt of this thread, wherever it came, or an exit that the operation asked for: the work must not
            # go on by itself.
            if call is not None:
                call.give_up()
            raise

    def _stop(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None:
                return
            loop.call_soon_threadsafe(loop.stop)
        thread.join(JOIN_S)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, then cancel and await what is left on it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class SyncRequest:
    """A request whose calls wait. The methods are those of `Request`, and so are their arguments and errors.

    Attributes:
        request: The request itself, with its context, extensions and ledger.
    """

    def __init__(self, guard: SyncGuard, request: Request) -> None:
        self._guard = guard
        self.request = request
        self._token: Token[SyncRequest | None] | None = None

    def __enter__(self) -> Self:
        self._token = current_sync_request.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current_sync_request.reset(self._token)
            self._token = None
        self.request.close(error)

    def call_tool(self, name: str, args: Any, call: Callable[..., Any], **options: Any) -> Any:
        """`Request.call_tool`, with `call` run in this thread."""
        return self._drive(self.request.call_tool, (name, args), call, options)

    def get_prompt(self, prompt_id: str, args: Any, render: Callable[..., Any], **options: Any) -> Any:
        """`Request.get_prompt`, with `render` run in this thread."""
        return self._drive(self.request.get_prompt, (prompt_id, args), render, options)

    def read_resource(self, uri: str, read: Callable[[str], Any], **options: Any) -> Any:
        """`Request.read_resource`, with `read` run in this thread."""
        return self._drive(self.request.read_resource, (uri,), read, options)

    def call_agent(self, agent_id: str, messages: Any, invoke: Callable[..., Any], **options: Any) -> Any:
        """`Request.call_agent`, with `invoke` run in this thread."""
        return self._drive(self.request.call_agent, (agent_id, messages), invoke, options)

    def call_model(self, messages: Any, invoke: Callable[..., Any], **options: Any) -> Any:
        """`Request.call_model`, with `invoke` run in this thread."""
        return self._drive(self.request.call_model, (messages,), invoke, options)

    def perform(self, kind: Kind, payload: Any, run: Callable[[Any], Any], **options: Any) -> Any:
        """`Request.perform`, with `run` run in this thread."""
        return self._drive(self.request.perform, (kind, payload), run, options)

    def _drive(
        self, method: Callable[..., Awaitable[Any]], given: Any, function: Callable[..., Any], options: dict[str, Any]
    ) -> Any:
        def begin(call: ThreadCall) -> Awaitable[Any]:
            resolve = options.get("resolve")
            own = {**options, "resolve": lambda name: call.here(resolve(name))} if resolve else options
            return method(*given, call.here(function), **own)

        return self._guard.drive(begin)
