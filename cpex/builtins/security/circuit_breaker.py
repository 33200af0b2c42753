"""The circuit breaker: tools that keep failing are left alone for a while."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.circuit import Circuit, Gate, Terms
from cpex.builtins.security.limit_headers import retry_after
from cpex.builtins.security.scopes import Scope, owner, scope_parts
from cpex.builtins.store.guarded import HTTP_SERVICE_UNAVAILABLE, GuardedStore, StoreSettings
from cpex.builtins.store.port import Store
from cpex.builtins.targets import Target, targets_of
from cpex.framework import PluginConfig, PluginResult, PluginViolation, clock
from cpex.framework.models import HookOutcome

__all__ = ["CircuitBreakerPlugin", "CircuitBreakerSettings"]

logger = logging.getLogger(__name__)

CODE = "CIRCUIT_OPEN"
_BEFORE = ("tool_pre_invoke", "cmf.tool_pre_invoke")
_AFTER = ("tool_post_invoke", "cmf.tool_post_invoke")
_STARTED = "started_s"
"""Where the plugin's state says since when a tool runs, by tool."""
_MAX_UNDECIDED = 10_000
"""Trials whose outcome is awaited; beyond it the oldest are given up when their time is over."""


class CircuitBreakerSettings(StoreSettings):
    """What counts as a failure, how many are too many, and for how long a tool is left alone then."""

    failure_threshold: int = Field(default=5, ge=1)
    """Failures in any stretch of `window_s` seconds that open a circuit."""
    failure_rate: float = Field(default=0.5, ge=0, le=1)
    """Share of the calls in that time that must have failed, too; with 0 the number alone decides."""
    window_s: float = Field(default=60, gt=0, allow_inf_nan=False)
    """Seconds in which failures count together; a window that slides."""
    open_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    """Seconds that a circuit stays open at first; twice as long after each trial that fails."""
    max_open_s: float = Field(default=300, gt=0, allow_inf_nan=False)
    """Seconds that it stays open at most."""
    trial_s: float = Field(default=60, gt=0, allow_inf_nan=False)
    """Seconds after which a trial without an answer is given up and another is made."""
    slow_call_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds beyond which an answer counts as a failure; without it, none does."""
    error_keys: list[str] = Field(default=["isError", "is_error"])
    """Keys or attributes of a result that say, by being true, that the tool failed."""
    scope: Scope = "tool"
    """Whose failures are counted together: `tool`, also `tool+tenant`, `tool+server` or both."""
    on_store_error: Literal["deny", "allow", "local"] = "local"
    """What becomes of a call while the store is away; `local` goes by the failures that this process has seen."""
    max_circuits: int = Field(default=10_000, ge=1)
    """Circuits that a store in memory keeps; beyond it the one idle longest is closed."""

    @field_validator("scope")
    @classmethod
    def _check_scope(cls, value: str) -> str:
        if "tool" not in scope_parts(value):
            raise ValueError("a circuit is one tool's; join other scopes to it, as in `tool+tenant`")
        return value

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.max_open_s < self.open_s:
            raise ValueError(f"`max_open_s` ({self.max_open_s:g}) is less than `open_s` ({self.open_s:g})")
        return self

    @property
    def terms(self) -> Terms:
        """The same for the rules."""
        return Terms(
            self.failure_threshold, self.failure_rate, self.window_s, self.open_s, self.max_open_s, self.trial_s
        )


class CircuitBreakerPlugin(Guard):
    """Denies calls of a tool that keeps failing, and lets one trial call through after a while.

    A tool has failed when its result is an exception, or says so (`isError`), or came too late. It takes both hooks,
    `tool_pre_invoke` and `tool_post_invoke` (or those of messages), with the same request id. When a trial succeeds
    the circuit closes; when it fails the circuit stays open twice as long.

    A denial has the code `CIRCUIT_OPEN`, HTTP status 503 and `Retry-After`. Circuits live where `store` says; while it
    is away each process goes by what it has seen itself, unless `on_store_error` says otherwise.

    Source: docs/plugins/circuit_breaker.md.
    """

    settings_model = CircuitBreakerSettings
    guards = (*_BEFORE, *_AFTER)

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and name the store.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: The store cannot be where it is said to be.
            ModuleNotFoundError: The store's library is not installed; the message names the extra.
        """
        super().__init__(config)
        self._settings = settings = CircuitBreakerSettings.model_validate(config.config or {})
        self._terms = settings.terms
        # A circuit is up to six entries: its state, its window of failures, calls and failures of two windows.
        self._store = GuardedStore(self.name, settings, max_entries=6 * settings.max_circuits)
        self._undecided: OrderedDict[tuple[str, str], list[Circuit]] = OrderedDict()

    @property
    def store_errors(self) -> int:
        """Calls that the store did not answer, since the start."""
        return self._store.errors

    async def shutdown(self) -> None:
        """Close the store; it opens again on use."""
        await self._store.close()

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Ask the circuits before, and report to them after."""
        tools = [target for target in targets_of(call.hook, call.payload) if target.kind == "tool"]
        return await (self._enter(call, tools) if call.hook in _BEFORE else self._leave(call, tools))

    async def hook_completed(self, outcome: HookOutcome) -> None:
        """Leave the trial to the next call, when this one was not made in the end."""
        trials = self._undecided.pop((outcome.request_id, outcome.hook), [])
        if not outcome.allowed:
            await self._give_up(trials, outcome.request_id)

    async def _enter(self, call: GuardedCall, tools: list[Target]) -> PluginResult[Any]:
        request, now_s = call.context.global_context.request_id, clock.now().timestamp()
        trials: list[Circuit] = []
        for tool in tools:
            circuit = self._circuit(call, tool)
            gate = await self._ask_to_enter(circuit, request, now_s)
            if gate is None or not gate.passes:
                await self._give_up(trials, request)
                return self._store.decide() if gate is None else _denial(tool, gate)
            if gate.state == "half_open":
                trials.append(circuit)
        self._note_start(call, tools)
        if not trials:
            return PluginResult()
        self._undecided[request, call.hook] = trials
        if len(self._undecided) > _MAX_UNDECIDED:
            self._undecided.popitem(last=False)
        return PluginResult(metadata={self.name: {"circuit": "half_open"}})

    async def _leave(self, call: GuardedCall, tools: list[Target]) -> PluginResult[Any]:
        request, now_s = call.context.global_context.request_id, clock.now().timestamp()
        changes: dict[str, str] = {}
        for tool in tools:
            circuit, failed = self._circuit(call, tool), self._has_failed(call, tool)
            state = await self._report(circuit, request, failed=failed, now_s=now_s)
            if state is not None:
                changes[tool.name] = state
                logger.warning("plugin `%s`: the circuit of tool `%s` is %s", self.name, tool.name, state)
        return PluginResult(metadata={self.name: {"circuits": changes}}) if changes else PluginResult()

    async def _ask_to_enter(self, circuit: Circuit, request: str, now_s: float) -> Gate | None:
        gate = await self._store.ask(lambda store: circuit.enter(store, _digest(request), now_s))
        if gate is None and self._settings.on_store_error == "allow":
            return Gate(True, "closed")
        return gate

    async def _report(self, circuit: Circuit, request: str, *, failed: bool, now_s: float) -> str | None:
        return await self._store.ask(lambda store: circuit.leave(store, _digest(request), failed=failed, now_s=now_s))

    async def _give_up(self, trials: list[Circuit], request: str) -> None:
        now_s = clock.now().timestamp()

        async def give_up_all(store: Store) -> bool:
            for circuit in trials:
                await circuit.give_up(store, _digest(request), now_s)
            return True

        if trials:
            await self._store.ask(give_up_all)

    def _circuit(self, call: GuardedCall, tool: Target) -> Circuit:
        return Circuit(owner(self._settings.scope, call, tool, "circuit_breaker", self.name), self._terms)

    def _note_start(self, call: GuardedCall, tools: list[Target]) -> None:
        if self._settings.slow_call_s is not None and tools:
            started = {**call.context.get_state(_STARTED, {}), **{tool.name: clock.monotonic() for tool in tools}}
            call.context.set_state(_STARTED, started)

    def _has_failed(self, call: GuardedCall, tool: Target) -> bool:
        if says_failure(tool.answer, self._settings.error_keys):
            return True
        slow_s, started_s = self._settings.slow_call_s, call.context.get_state(_STARTED, {}).get(tool.name)
        return slow_s is not None and started_s is not None and clock.monotonic() - started_s > slow_s


def says_failure(result: Any, keys: list[str]) -> bool:
    """Whether a tool's result is an exception, or has one of these keys or attributes set to true."""
    if isinstance(result, BaseException):
        return True
    if isinstance(result, Mapping):
        return any(result.get(key) is True for key in keys)
    return any(getattr(result, key, None) is True for key in keys)


def _digest(request: str) -> str:
    """A request's id, of whatever length, as a short word."""
    return hashlib.blake2b(request.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _denial(tool: Target, gate: Gate) -> PluginResult[Any]:
    wait = retry_after(gate.retry_after_s)
    violation = PluginViolation(
        reason=f"Tool '{tool.name}' keeps failing and is left alone",
        description=f"The tool has failed too often; try again in {wait} s.",
        code=CODE,
        details={"tool": tool.name, "state": gate.state, "retry_after_s": int(wait)},
        http_status_code=HTTP_SERVICE_UNAVAILABLE,
        http_headers={"Retry-After": wait},
    )
    numbers = {"retry_after_s": int(wait)}
    return PluginResult(continue_processing=False, violation=violation, denial_metadata=numbers)
