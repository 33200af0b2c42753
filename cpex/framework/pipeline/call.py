"""The state of one hook call.

`ExecutionContext` lives as long as one call: it hands out contexts, holds the limits, keeps what plugins have changed
so far and the trail of what happened. `answers.py` and `failures.py` change it, `decision.py` tells what came of it.
"""

from __future__ import annotations

from typing import Any, Protocol

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PluginViolationError, tellable
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.tiers import filter_extensions
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy
from cpex.framework.memory.size import content_bytes
from cpex.framework.memory.table import ContextTable
from cpex.framework.memory.views import ContextSource, state_changes
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginViolation
from cpex.framework.pipeline.disabling import Disabled
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import HookPlan, Step
from cpex.framework.pipeline.stepping import Stepper
from cpex.framework.pipeline.tracing import Tracer
from cpex.framework.pipeline.trail import Trail

DECISION_PLUGIN_METADATA_KEY = "_decision_plugin"
RESERVED_INTERNAL_METADATA_KEYS = frozenset({DECISION_PLUGIN_METADATA_KEY})
HTTP_AUTH_CHECK_PERMISSION_HOOK = "http_auth_check_permission"


class Engine(Protocol):
    """What a call needs of the executor that runs it."""

    timeout: float | None
    """Seconds for each plugin that has no limit of its own; `None` means no limit."""
    hook_timeout_s: float | None
    """Seconds for the whole call; `None` means no limit."""
    max_payload_bytes: int
    hook_policies: dict[str, HookPayloadPolicy]
    default_hook_policy: DefaultHookPolicy
    disabled: Disabled
    idle_steppers: list[Stepper]


class PhaseState:
    """What a call has gathered from the plugins that ran so far.

    The class attributes are the state of a call that nobody has touched: an instance only holds what differs.
    """

    payload_modified = False
    reply: Any = None
    """The reply gathered so far, for hooks whose reply is of another type than their payload."""
    extensions_modified = False
    metadata: dict[str, Any] | None = None
    http_headers: dict[str, str] | None = None
    denial_metadata: dict[str, Any] | None = None
    retry_delay_ms = 0
    """The longest that a plugin asked for."""
    decider: str | None = None
    """Name of the plugin whose change of the payload came last."""
    halted_by: Step | None = None
    violation: PluginViolation | None = None
    violation_error: PluginViolationError | None = None
    skipped = 0
    """Plugins that did not take their turns: their conditions did not hold, or they are disabled."""
    decided_ns = 0
    """When the decision was made, on the clock of `elapsed_ns`."""
    eventful = False
    """Whether any plugin said more than a plain allow."""
    transformed = False
    """Whether the transform phase is through."""
    redaction: Any = None
    """What background work may see of the payload; belongs to `redaction.py`."""

    def __init__(self, payload: Any, extensions: Extensions | None) -> None:
        self.payload = payload
        self.extensions = extensions
        self.trail = Trail()


class ExecutionContext(PhaseState):
    """One hook call."""

    deadline_ns: int | None = None
    """When the whole call's time is over, on the clock of `elapsed_ns`."""

    def __init__(
        self,
        engine: Engine,
        plan: HookPlan,
        payload: Any,
        global_context: GlobalContext,
        incoming: dict[str, PluginContext] | None,
        extensions: Extensions | None,
        tracer: Tracer | None,
    ) -> None:
        self.payload = payload
        self.extensions = extensions
        self.trail = Trail()
        self.engine = engine
        self.plan = plan
        self.global_context = global_context
        self.request_id = global_context.request_id
        self.source = source = ContextSource(global_context)
        self.table: dict[str, PluginContext]
        # Ids of plugins that never touched their contexts, which the table makes when it is read; `None` where every
        # context is entered at once.
        self.owed: list[str] | None
        if incoming:
            # Entries of plugins that take no part in this hook travel on to the request's next one.
            self.table, self.owed = dict(incoming), None
        else:
            self.table = table = ContextTable(self.request_id, source)
            self.owed = table.owed
        self.tracer = tracer
        self.started_ns = elapsed_ns()
        # Whether a plugin's turn needs a look at more than its conditions; disabling may begin within this very call.
        self.watched = bool(engine.disabled)
        if engine.hook_timeout_s is not None:
            self.deadline_ns = self.started_ns + int(engine.hook_timeout_s * 1_000_000_000)
            self.watched = True
        # Whether a turn is more than calling the handler with a view and a context.
        self.special = (
            plan.special or self.watched or tracer is not None or plan.smallest_limit < engine.max_payload_bytes
        )

    # What a plugin is handed.

    def context_for(self, step: Step) -> PluginContext:
        """The plugin's context: its own from an earlier hook of the request, or a new one; entered in the table."""
        key = self.request_id + step.uuid
        # Past the table's own bookkeeping: entries that nobody has touched need not be made for this one.
        context = self.source.held(dict.get(self.table, key), self)
        dict.__setitem__(self.table, key, context)
        return context

    def extensions_for(self, step: Step) -> Extensions | None:
        """The slots that the plugin's capabilities open."""
        return filter_extensions(self.extensions, step.capabilities)

    def check_size(self, step: Step) -> None:
        """Hold the plugin's own limit on the payload's content.

        Raises:
            ValueError: The content is over the limit; it counts as the plugin's failure.
        """
        size = content_bytes(_content(self.payload), stop_after=step.max_bytes)
        if size > step.max_bytes:
            raise ValueError(f"Payload size exceeds limit of {step.max_bytes} bytes for plugin {step.name}")

    def limit_of(self, step: Step) -> float | None:
        """Seconds that the plugin may take: its own limit, else the manager's."""
        return step.timeout_s if step.timeout_s is not None else self.engine.timeout

    def seconds_for(self, step: Step, started_ns: int) -> float | None:
        """Seconds that the plugin has left, by its own deadline and the call's."""
        limit = self.limit_of(step)
        now = elapsed_ns()
        left = None if limit is None else limit - (now - started_ns) / 1e9
        if self.deadline_ns is None:
            return left
        of_call = (self.deadline_ns - now) / 1e9
        return of_call if left is None else min(left, of_call)

    def past_deadline(self) -> bool:
        """Whether the whole call's time is over."""
        return self.deadline_ns is not None and elapsed_ns() >= self.deadline_ns

    # What became of it.

    def share_state(self, context: PluginContext) -> None:
        """Carry the plugin's writes to shared state into the host's context."""
        try:
            changes = state_changes(context, self.global_context)
        # Containers of the plugin's own run their code here. Its answer has been taken, and stands.
        except Exception as error:
            text = "What a plugin of hook %s wrote to shared state cannot be read"
            logger.warning(text, self.plan.hook, exc_info=tellable(error))
            return
        for change in changes:
            change.apply(self.global_context)

    def records(self) -> list[ControlExecutionRecord]:
        """The trail in full. Every call returns the same record objects in a list of its own."""
        return self.trail.records()


def _content(payload: Any) -> Any:
    values = getattr(payload, "__dict__", None)
    return list(values.values()) if isinstance(values, dict) else payload
