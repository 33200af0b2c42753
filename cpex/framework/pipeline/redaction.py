"""What may be seen of a payload after its call was decided.

Background plugins and observers see the final payload, in a snapshot taken before the caller goes on. When the call
ended before its transform phase was through, that phase first runs here, on the snapshot, so that what a transform
would have redacted reaches nobody's log. If a transform fails at that, the payload is shown to nobody: an unredacted
payload is worse than a missing line.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from typing import Any

from cpex.framework.clock import elapsed_ns
from cpex.framework.memory.views import snapshot_context, snapshot_global_context
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.mode import ControlExecutionStatus, PluginMode
from cpex.framework.pipeline.background import Background, is_interrupt
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.serial import resume, walk


class Redaction:
    """The payload that background work may see: ready at once, or after the transform phase has run on it."""

    def __init__(self, call: ExecutionContext, background: Background) -> None:
        self._payload = copy_tree(call.payload)
        self._task: asyncio.Task[Any] | None = None
        self.possible = True
        if call.plan.transforms and not _is_transformed(call):
            self._task = background.spawn(functools.partial(_redact, _redacting(call, self._payload)), "redaction")
            self.possible = self._task is not None

    @classmethod
    def of(cls, call: ExecutionContext, background: Background) -> Redaction:
        """The one redaction of a call, for all that runs after its decision."""
        if call.redaction is None:
            call.redaction = cls(call, background)
        shared: Redaction = call.redaction
        return shared

    async def payload(self) -> Any:
        """The payload that may be shown; everyone who looks at it needs a view of their own.

        Raises:
            RedactionFailed: The payload must not be shown.
        """
        if self._task is not None:
            # Shielded: one background task's end must not take the redaction from the others.
            self._payload = await asyncio.shield(self._task)
        if not self.possible or self._payload is _FAILED:
            raise RedactionFailed
        return self._payload


def _is_transformed(call: ExecutionContext) -> bool:
    """Whether the transform phase is through: the whole serial part is, or a plugin of the next phase had its turn."""
    return call.transformed or any(record.mode is PluginMode.AUDIT for record in call.records())


class RedactionFailed(Exception):
    """The payload of a call that ended early could not be brought into the form that telemetry may see."""


_FAILED: Any = object()


def _redacting(call: ExecutionContext, payload: Any) -> ExecutionContext:
    """A call of the transform phase alone, on snapshots taken now; nothing of it reaches the caller."""
    host = snapshot_global_context(call.global_context)
    plan = replace(call.plan, serial=call.plan.transforms, concurrent=(), background=(), observers=())
    contexts = {
        call.request_id + step.uuid: snapshot_context(call.table.get(call.request_id + step.uuid), host)
        for step in plan.serial
    }
    return ExecutionContext(call.engine, plan, payload, host, contexts, call.extensions, None)


async def _redact(inner: ExecutionContext) -> Any:
    try:
        steps = iter(inner.plan.serial)
        await resume(inner, steps, walk(inner, steps, elapsed_ns()))
    # Whatever a transform raised has been logged where it was handled; here it only means "do not show".
    except BaseException as error:
        if is_interrupt(error):
            raise
        return _FAILED
    bad = {ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT, ControlExecutionStatus.DISABLED}
    if any(record.status in bad for record in inner.records()):
        return _FAILED
    return inner.payload
