"""Running one coroutine in the caller's task, in context variables of its own, under a deadline.

A handler's first step is taken by hand, by a `Stepper`. Most handlers end there, without a task and without a timer.
For one that waits, `carry_on` passes what it waits for up to the caller's own task, so that cancel scopes,
`asyncio.timeout` and `asyncio.current_task()` inside it behave as under a plain `await`, and arms a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

from cpex.framework.pipeline.groups import OwnRequests

logger = logging.getLogger(__name__)

CLEANUP_GRACE_S = 5.0
"""Seconds that a handler may take to clean up after its deadline, before it is abandoned."""


ENDED: Any = object()
"""What a stepper yields when the coroutine that it was sent has ended."""


class Stepper:
    """Takes the first step of any number of coroutines, one after another.

    `context.run(stepper.send, coroutine)` is `ENDED` when the coroutine has ended, and its result is in `answer`: no
    exception carries it, which would cost more than the rest of the step. Otherwise it is what the coroutine waits for;
    then, and when the coroutine has raised, this stepper is used up. Keep it for as long as the coroutine lives.
    """

    __slots__ = ("answer", "send")

    def __init__(self) -> None:
        self.answer: list[Any] = [None]
        """Holds one value, in a list, so that the steps need no way back to this object."""
        steps = _steps(self.answer)
        steps.send(None)
        self.send = steps.send


@types.coroutine
def _steps(answer: list[Any]) -> Generator[Any, Any, Any]:
    # Nothing is kept in a variable: whoever asks for references to a plugin's view must not find one here.
    while True:
        answer[0] = yield from (yield ENDED)


class Runs(Protocol):
    """What a coroutine's steps are run in: a `contextvars.Context`, or something else that calls what it is given."""

    def run(self, callable: Callable[..., Any], /, *args: Any) -> Any:
        """Call it and return what it returns."""


class Here:
    """The context variables that are in force: what `initialize` sets in the host's task, `shutdown` may reset."""

    @staticmethod
    def run(function: Callable[..., Any], /, *args: Any) -> Any:
        """Call it and return what it returns."""
        return function(*args)


class DeadlineReached(Exception):
    """The deadline that we armed has passed; never raised by a plugin."""


class Deadline:
    """Cancels the current task at a time, once, and again for good when the grace is over.

    Without a time it cancels nothing, and only tells whether somebody else did.
    """

    __slots__ = ("_base", "_handle", "_loop", "_own", "_task", "abandoned", "cancellation", "fired")

    def __init__(self, seconds: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        # A coroutine can only wait on the event loop from inside a task, and it is waiting.
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._base = task.cancelling()
        self.fired = 0
        self.abandoned = False
        """Whether the coroutine did not end in the grace either, and was closed."""
        self._own: OwnRequests | None = None
        self.cancellation: asyncio.CancelledError | None = None
        """The last cancellation that the handler was told of, ours or another's."""
        self._handle: asyncio.TimerHandle | None = None
        if seconds is not None:
            self._handle = self._loop.call_later(max(0.0, seconds), self._expire)

    def _expire(self) -> None:
        self.fired += 1
        self._task.cancel()
        self._handle = self._loop.call_later(CLEANUP_GRACE_S, self._abandon)

    def _abandon(self) -> None:
        self.fired += 1
        self.abandoned = True
        self._task.cancel()

    def deliver(self, error: asyncio.CancelledError, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Note a cancellation that the handler is about to be told of."""
        if self._own is None:
            self._own = OwnRequests(self._base)
        if not self._own.taken_back(self._task, coroutine, self.fired):
            self.cancellation = error

    def disarm(self) -> bool:
        """Stop the clock and take our cancellations back; return whether somebody else's remains."""
        if self._handle is not None:
            self._handle.cancel()
        for _ in range(self.fired):
            self._task.uncancel()
        return self._task.cancelling() > self._base

    def let_go(self) -> None:
        """Forget task and exception: their frames refer to us, and a cycle would keep the whole call alive."""
        self.cancellation = self._own = None
        del self._task


async def carry_on(coroutine: Coroutine[Any, Any, Any], context: Runs, waiting: Any, seconds: float | None) -> Any:
    """Drive a coroutine that has suspended to its end, in the caller's task.

    Args:
        waiting: What the coroutine yielded when it suspended.
        seconds: Time left; `None` means no limit.

    Raises:
        DeadlineReached: The time ran out, whatever the coroutine made of its cancellation.
        asyncio.CancelledError: Somebody else cancelled the caller's task, whatever the coroutine made of it.
    """
    deadline = Deadline(seconds)
    try:
        return await carry_on_until(deadline, coroutine, context, waiting)
    finally:
        deadline.let_go()


async def carry_on_until(deadline: Deadline, coroutine: Coroutine[Any, Any, Any], context: Runs, waiting: Any) -> Any:
    """The same for who looks at the deadline afterwards, and lets it go."""
    try:
        result = await _drive(coroutine, context, waiting, deadline)
    except BaseException as error:
        cancelled_by_others = deadline.disarm()
        if isinstance(error, GeneratorExit) or (cancelled_by_others and isinstance(error, asyncio.CancelledError)):
            raise
        if cancelled_by_others and deadline.cancellation is not None:
            raise deadline.cancellation from error
        if not deadline.fired:
            raise
        raise DeadlineReached from error
    if deadline.disarm() and deadline.cancellation is not None:
        # The caller's cancellation is not the handler's to swallow. Cancel scopes know theirs by the very exception.
        raise deadline.cancellation
    if deadline.fired:
        # An answer after the deadline is no answer: the same handler must not pass on one run and fail on the next.
        raise DeadlineReached
    return result


@types.coroutine
def _drive(
    coroutine: Coroutine[Any, Any, Any], context: Runs, waiting: Any, deadline: Deadline
) -> Generator[Any, Any, Any]:
    run = context.run
    try:
        while True:
            try:
                sent = yield waiting
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as error:
                if deadline.abandoned:
                    _close(coroutine, context)
                    raise
                if isinstance(error, asyncio.CancelledError):
                    deadline.deliver(error, coroutine)
                waiting = run(coroutine.throw, error)
            else:
                waiting = run(coroutine.send, sent)
    except StopIteration as stop:
        return stop.value


def _close(coroutine: Coroutine[Any, Any, Any], context: Runs) -> None:
    try:
        context.run(coroutine.close)
    # A handler that swallows its own closing has nothing left to say to the caller.
    except BaseException:
        logger.warning("A handler kept running after its deadline and was abandoned", exc_info=True)
