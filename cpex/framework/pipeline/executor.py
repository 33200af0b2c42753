"""Runs hook calls: checks the budget, walks the plan, hands the decision over, starts what follows it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from cpex.framework.base import HookRef, hook_name
from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PayloadSizeError, PluginError
from cpex.framework.extensions import Extensions
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy
from cpex.framework.memory.size import content_bytes, fits
from cpex.framework.models.context import GlobalContext, PluginContext, PluginContextTable
from cpex.framework.models.mode import ControlExecutionStatus
from cpex.framework.models.result import PluginResult
from cpex.framework.observability import ObservabilityProvider, watch_engine
from cpex.framework.pipeline.background import Background
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.concurrent import run_concurrent
from cpex.framework.pipeline.decision import merged_result, violation_exception
from cpex.framework.pipeline.disabling import Disabled
from cpex.framework.pipeline.fire_and_forget import start_background
from cpex.framework.pipeline.observers import tell_observers
from cpex.framework.pipeline.plan import HookPlan, compile_plan
from cpex.framework.pipeline.serial import resume, walk
from cpex.framework.pipeline.single import run_single
from cpex.framework.pipeline.stepping import Stepper
from cpex.framework.pipeline.tracing import tracer_for

MAX_MEASURED = 1024
"""How many payload objects are remembered as measured."""
MAX_COMPILED = 256
"""How many lists of handlers given to `execute` are remembered as compiled."""


class Executor:
    """Executes compiled plans. Holds no state of any one call.

    Attributes:
        timeout: Seconds for each plugin that has no limit of its own; `None` means no limit.
        hook_policies: Writable fields by hook.
        background: Owner of everything that outlives its call.
        not_started: Names of plugins that its manager started without.
    """

    def __init__(
        self,
        config: Any = None,
        timeout: float | None = 30,
        observability: ObservabilityProvider | None = None,
        hook_policies: dict[str, HookPayloadPolicy] | None = None,
        default_hook_policy: str | DefaultHookPolicy | None = None,
        *,
        hook_timeout_s: float | None = None,
        max_payload_bytes: int = 1_000_000,
        background_limit: int = 1000,
        drain_timeout_s: float = 5.0,
        execution_pool: int = 0,
    ) -> None:
        """Keep the limits; `execution_pool` is how many concurrent plugins of one call run at once, 0 for all."""
        self.config = config
        self.timeout = timeout
        self.observability = observability
        self.hook_policies: dict[str, HookPayloadPolicy] = dict(hook_policies or {})
        self.default_hook_policy = DefaultHookPolicy(default_hook_policy or DefaultHookPolicy.ALLOW)
        self.hook_timeout_s = hook_timeout_s
        self.max_payload_bytes = max_payload_bytes
        self.execution_pool = execution_pool
        self.background = Background(background_limit, drain_timeout_s)
        self.disabled = self._runtime_disabled = Disabled()
        self.not_started: frozenset[str] = frozenset()
        self.idle_steppers: list[Stepper] = []
        self._measured: dict[int, weakref.ref[Any]] = {}
        self._compiled: dict[tuple[Any, ...], HookPlan] = {}
        watch_engine(self)

    async def run(
        self,
        plan: HookPlan,
        payload: Any,
        global_context: GlobalContext,
        local_contexts: PluginContextTable | None = None,
        violations_as_exceptions: bool = False,
        extensions: Extensions | None = None,
    ) -> tuple[PluginResult[Any], PluginContextTable]:
        """Walk a plan.

        Raises:
            PayloadSizeError: The content of the payload is over the limit; no plugin has run.
            PluginError: A plugin failed and its `on_error` is `fail`, or the call ran out of time.
            PluginViolationError: A plugin denied and `violations_as_exceptions` is set.
        """
        # Written out, as most of this is: it runs for every guarded operation.
        measured = self._measured.get(id(payload))
        if measured is None or measured() is not payload:
            self.check_size(payload)
        tracer = tracer_for(self.observability, plan) if self.observability is not None else None
        call = ExecutionContext(self, plan, payload, global_context, local_contexts, extensions, tracer)
        try:
            if plan.serial:
                steps = iter(plan.serial)
                if (waiting := walk(call, steps, call.started_ns)) is not None:
                    await resume(call, steps, waiting)
            call.transformed = call.halted_by is None
            if plan.concurrent and call.halted_by is None:
                await run_concurrent(call, self.execution_pool)
        except BaseException as error:
            self._close(call, error)
            raise
        if call.halted_by is not None and violations_as_exceptions:
            violation = violation_exception(call)
            self._close(call, None)
            raise violation
        tasks = start_background(call, self.background) if plan.background else None
        if plan.observers or tracer is not None:
            self._close(call, None)
        return merged_result(call, tasks), call.table

    def _close(self, call: ExecutionContext, error: BaseException | None) -> None:
        """What every exit does: complete the failure's records, tell the observers, close the chain span."""
        call.decided_ns = elapsed_ns()
        if isinstance(error, PluginError):
            error.executions = call.records()
        if call.plan.observers and not isinstance(error, GeneratorExit):
            tell_observers(call, self.background, error)
        if call.tracer is not None:
            call.tracer.end_chain(
                "ok" if error is None else "error",
                executed=_executed(call),
                skipped=call.skipped,
                stopped_by=call.halted_by.name if call.halted_by is not None else None,
            )

    def check_size(self, payload: Any) -> None:
        """Hold the byte budget, measuring each payload object once.

        Raises:
            PayloadSizeError: The content is over the budget.
        """
        known = self._measured.get(id(payload))
        if known is not None and known() is payload:
            return
        values = getattr(payload, "__dict__", None)
        content = list(values.values()) if isinstance(values, dict) else payload
        if not fits(content, self.max_payload_bytes):
            what = "Result" if isinstance(values, dict) and values.get("result") is not None else "Payload"
            size = content_bytes(content)
            raise PayloadSizeError(f"{what} size {size} exceeds limit of {self.max_payload_bytes} bytes")
        try:
            reference = weakref.ref(payload)
        except TypeError:
            # Plain dicts and the like cannot be referred to weakly; they are measured each time.
            return
        if len(self._measured) >= MAX_MEASURED:
            self._measured.clear()
        self._measured[id(payload)] = reference

    async def execute(
        self,
        hook_refs: Iterable[HookRef],
        payload: Any,
        global_context: GlobalContext,
        hook_type: str,
        local_contexts: PluginContextTable | None = None,
        violations_as_exceptions: bool = False,
        extensions: Extensions | None = None,
    ) -> tuple[PluginResult[Any], PluginContextTable | None]:
        """Compile a list of handlers, or find it compiled, and run it; see `run`."""
        refs = tuple(hook_refs)
        if not refs:
            return PluginResult(), dict(local_contexts) if local_contexts else None
        plan = self._compiled.get((hook_type, *refs))
        if plan is None:
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            plan = self._compiled[(hook_type, *refs)] = compile_plan(hook_name(hook_type), refs)
        return await self.run(plan, payload, global_context, local_contexts, violations_as_exceptions, extensions)

    async def execute_plugin(
        self,
        hook_ref: HookRef,
        payload: Any,
        local_context: PluginContext,
        violations_as_exceptions: bool,
        global_context: GlobalContext | None = None,
        combined_metadata: dict[str, Any] | None = None,
        extensions: Extensions | None = None,
    ) -> PluginResult[Any]:
        """Call one handler by itself: timeout and `on_error` apply; isolation, conditions, policies and records do not.

        Raises:
            PluginError: It failed, and its `on_error` is `fail`.
            PluginTimeoutError: It timed out, and its `on_error` is another.
            PluginViolationError: It denied in a blocking mode and `violations_as_exceptions` is set.
        """
        return await run_single(
            hook_ref,
            payload,
            local_context,
            timeout_s=self.timeout,
            raises=violations_as_exceptions,
            global_context=global_context,
            metadata=combined_metadata,
            extensions=extensions,
            disabled=self._runtime_disabled,
        )

    async def reset_runtime_disabled(self) -> None:
        """Enable every plugin that was disabled after a failure."""
        self._runtime_disabled.clear()

    async def drain(self) -> int:
        """Wait for background work, at most the drain timeout; return how many tasks had to be cancelled."""
        return await self.background.drain()


def _executed(call: ExecutionContext) -> int:
    """How many plugins the caller waited for to their end, without the one whose failure ended the call."""
    failed = {ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT}
    background = {step.name for step in call.plan.background}
    return sum(
        (record.status is ControlExecutionStatus.COMPLETED or (record.status in failed and record.effective_allow))
        and record.plugin_name not in background
        for record in call.records()
    )
