"""Telling plugins that want to know (`hook_completed`) what was finally decided, in the background."""

from __future__ import annotations

import functools
from dataclasses import replace

from cpex.framework.errors import tellable
from cpex.framework.memory.views import Views
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.mode import ControlExecutionStatus
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.pipeline.background import Background, is_interrupt
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.decision import outcome_of
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import Observer
from cpex.framework.pipeline.redaction import Redaction, RedactionFailed


def tell_observers(call: ExecutionContext, background: Background, error: BaseException | None) -> None:
    """Tell the plugins that want to know what was finally decided."""
    ran = {record.plugin_name for record in call.records() if record.status is not ControlExecutionStatus.DISABLED}
    observers = [each for each in call.plan.observers if each.observes_all or each.name in ran]
    if not observers:
        return
    redaction = Redaction.of(call, background)
    outcome = outcome_of(call, error)
    for observer in observers:
        start = functools.partial(_tell, outcome, observer, redaction, background)
        background.spawn(start, f"outcome:{observer.name}")


async def _tell(outcome: HookOutcome, observer: Observer, redaction: Redaction, background: Background) -> None:
    try:
        payload = Views(await redaction.payload()).view()
    except RedactionFailed:
        # The outcome is still told (refunds depend on it), without what may not be shown.
        payload = None
        background.count_skipped(1)
    try:
        # An outcome of its own, as far as it can be changed.
        own = replace(
            outcome,
            payload=payload,
            violation=copy_tree(outcome.violation),
            user=copy_tree(outcome.user),
            # Those of turns that have not ended are completed in place, for everyone who holds them.
            executions=[each if each.pending else copy_tree(each) for each in outcome.executions],
        )
        await observer.call(own)
    # Plugin boundary; nobody else is there to whom a failure of any kind could go.
    except BaseException as error:
        if is_interrupt(error):
            raise
        logger.error("Plugin %s failed in hook_completed", observer.name, exc_info=tellable(error))
