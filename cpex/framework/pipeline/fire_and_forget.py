"""The fire_and_forget phase: plugins that run after the decision, on a snapshot, off the caller's path."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from cpex.framework.errors import PluginViolationError, convert_exception_to_error, tellable
from cpex.framework.memory.views import ContextSource, snapshot_global_context
from cpex.framework.models import _truncate_opt
from cpex.framework.models.context import PluginContext
from cpex.framework.models.lazy import raw_dict
from cpex.framework.models.mode import ControlExecutionStatus, OnError
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.pipeline.background import Background, is_interrupt
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.failures import timeout_text
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.redaction import Redaction, RedactionFailed
from cpex.framework.pipeline.relay import Relay, Turn
from cpex.framework.pipeline.stepping import DeadlineReached
from cpex.framework.pipeline.turns import admitted


class _Background(Turn):
    """One fire-and-forget plugin's turn, and its record, which is completed in place if somebody asks for it early."""

    failure: PluginErrorModel | None = None
    outcome: _Outcome | None = None
    """`None` as long as it is pending."""
    _record: ControlExecutionRecord | None = None

    def record(self) -> ControlExecutionRecord:
        """The record, true as of now; every call returns the same object."""
        if self._record is None:
            self._record = self.step.record(requested_allow=None, matched=None)
            self._tell()
        return self._record

    def close(self, outcome: _Outcome) -> None:
        """Note how the turn ended."""
        self.outcome = outcome
        if self._record is not None:
            self._tell()

    def _tell(self) -> None:
        outcome = self.outcome or _COMPLETED
        # Straight into the record's dictionary: assignments through pydantic would cost as much as the turn.
        raw_dict(self._record).update(
            status=outcome.status,
            duration_ns=self.duration_ns,
            reason=outcome.reason,
            error_code=outcome.code,
            pending=self.outcome is None,
        )


class _Outcome(NamedTuple):
    """How a background turn ended."""

    status: ControlExecutionStatus
    code: str | None = None
    reason: str | None = None


_COMPLETED = _Outcome(ControlExecutionStatus.COMPLETED)
_CANCELLED = _Outcome(ControlExecutionStatus.CANCELLED)


def start_background(call: ExecutionContext, background: Background) -> list[asyncio.Task[Any]]:
    """Start the fire-and-forget plugins of a call that was decided.

    Returns:
        The task that ends when all of them have. Its result is the error of a single plugin (`None` without one), or a
        list of the errors of several.
    """
    steps: Iterable[Step] = call.plan.background
    if call.special or call.engine.disabled:
        steps = [step for step in steps if admitted(call, step)]
        if not steps:
            return []
    # The limit was on the caller's waiting, and that is over.
    call.deadline_ns = None
    # Taken now, once for all of them: afterwards the host's objects are the host's again.
    source = ContextSource(snapshot_global_context(call.global_context))
    turns = [_Background(step) for step in steps]
    _note_contexts(call, turns, source)
    call.trail.extend(turns)
    redaction = Redaction.of(call, background)
    task = background.spawn(functools.partial(_run_all, call, turns, redaction, background, source), turns[0].step.name)
    if task is not None:
        return [task]
    background.count_refused(len(turns) - 1)
    for turn in turns:
        turn.close(_Outcome(ControlExecutionStatus.SKIPPED, "background_limit"))
    return []


def _note_contexts(call: ExecutionContext, turns: list[_Background], source: ContextSource) -> None:
    """Let the table know of the plugins' contexts: each goes on from what its plugin had so far, as that is now."""
    if call.owed is not None and call.plan.distinct:
        # New to the request, so there is nothing to go on from.
        call.owed.extend([turn.step.uuid for turn in turns])
        return
    for turn in turns:
        key = call.request_id + turn.step.uuid
        turn.context = source.continued(call.table.get(key))
        call.table[key] = turn.context


class _BackgroundRelay(Relay[_Background]):
    """The background turns of one call."""

    noted = True

    def __init__(
        self,
        call: ExecutionContext,
        turns: list[_Background],
        payload: Any,
        source: ContextSource,
        background: Background,
    ) -> None:
        super().__init__(call, iter(turns), payload, source)
        self._background = background
        self._what = turns[0].step.name
        self.followers: list[asyncio.Task[Any]] = []

    def entered(self, turn: _Background) -> PluginContext:
        if turn.context is None:
            # Somebody has asked the table for it meanwhile, and got it.
            key = self.call.request_id + turn.step.uuid
            turn.context = self._source.held(dict.get(self.call.table, key), self.call)
            dict.__setitem__(self.call.table, key, turn.context)
        return turn.context

    def spawn(self) -> asyncio.Task[Any] | None:
        if len(self._background) >= self._background.limit:
            return None
        task = self._background.spawn(self.run, self._what)
        if task is not None:
            self.followers.append(task)
        return task

    def is_interrupt(self, error: BaseException) -> bool:
        return is_interrupt(error)

    def allowed(self, turns: list[_Background]) -> None:
        disabled = self.call.engine.disabled
        for turn in turns:
            turn.outcome = _COMPLETED
            if turn._record is not None:
                turn.close(_COMPLETED)
            if disabled:
                disabled.passed(turn.step)

    def ended(self, turn: _Background) -> None:
        error, turn.error = turn.error, None
        if error is None or isinstance(error, PluginViolationError):
            # Its answer is ignored, a denial like any other.
            turn.close(_COMPLETED)
            if self.call.engine.disabled:
                self.call.engine.disabled.passed(turn.step)
            return
        try:
            if is_interrupt(error):
                turn.close(_CANCELLED)
            else:
                _failed(self.call, turn, error)
        finally:
            # Its traceback refers to this frame: a cycle that would keep the call alive.
            del error


async def _run_all(
    call: ExecutionContext,
    turns: list[_Background],
    redaction: Redaction,
    background: Background,
    source: ContextSource,
) -> PluginErrorModel | list[PluginErrorModel] | None:
    followers: list[asyncio.Task[Any]] = []
    try:
        relay = _BackgroundRelay(call, turns, await redaction.payload(), source, background)
        followers = relay.followers
        await relay.run()
        for task in followers:
            await task
    except RedactionFailed:
        background.count_skipped(len(turns))
        for turn in turns:
            turn.close(_Outcome(ControlExecutionStatus.SKIPPED, "redaction_failed"))
        logger.error("Background plugins were skipped: the payload of hook %s could not be redacted", call.plan.hook)
    # Cancelled or interrupted.
    except BaseException:
        for task in followers:
            task.cancel()
        for turn in turns:
            if turn.outcome is None:
                turn.close(_CANCELLED)
        raise
    failures = [turn.failure for turn in turns if turn.failure is not None]
    return failures if len(turns) > 1 else next(iter(failures), None)


def _failed(call: ExecutionContext, turn: _Background, error: BaseException) -> None:
    step, late = turn.step, isinstance(error, DeadlineReached)
    failure = turn.failure = (
        PluginErrorModel(message=timeout_text(call, step), plugin_name=step.name, code="plugin_timeout")
        if late
        else convert_exception_to_error(error, step.name)
    )
    status = ControlExecutionStatus.TIMEOUT if late else ControlExecutionStatus.ERROR
    turn.close(_Outcome(status, "plugin_timeout" if late else "plugin_error", _truncate_opt(failure.message)))
    shown = None if late else tellable(error)
    logger.error("Background plugin %s failed: %s", step.name, failure.message, exc_info=shown)
    if step.on_error is OnError.DISABLE:
        call.engine.disabled.disable(step.name)
