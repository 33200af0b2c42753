"""The policy decision plugin: asks a policy engine about each tool, prompt, resource and agent of a call."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr

from cpex.builtins.content import GUARDED_HOOKS
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.session import session_key, user_id
from cpex.builtins.targets import Target, targets_of
from cpex.framework import PluginConfig, PluginContext, PluginResult, PluginViolation
from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.pdp import AuthZenResolver, CachingResolver, OpaResolver, PdpResolver, PdpResult

__all__ = ["PolicyDecisionPlugin", "PolicyDecisionSettings"]

CODE = "POLICY_DENIED"
HTTP_FORBIDDEN = 403


class DecisionPointTLS(MCPClientTLSConfig, extra="forbid"):
    """Certificates and checks towards the engine."""


class PolicyDecisionSettings(BaseModel, extra="forbid", frozen=True):
    """Which engine is asked, and how."""

    engine: Literal["opa", "authzen"]
    """Open Policy Agent, or anything that speaks AuthZEN."""
    endpoint: str
    """Its URL; see docs/reference/pdp.md."""
    timeout_ms: int = Field(default=500, gt=0)
    """Milliseconds for one question."""
    headers: dict[str, SecretStr] = {}
    """Added to every request."""
    fail_open: bool = False
    """Let pass what gets no answer, with a WARNING each time."""
    retries: int = Field(default=0, ge=0)
    """How often a lost connection is tried again."""
    tls: DecisionPointTLS | None = None
    """Certificates and checks; without them the system's authorities count."""
    cache_ttl_s: float | None = Field(default=None, gt=0)
    """Seconds that a decision holds; without it each call is asked about."""
    send_args: bool = True
    """Whether the engine sees arguments."""


class PolicyDecisionPlugin(Guard):
    """Denies what the policy engine denies.

    Each tool, prompt, resource and agent that a call is about is a question; the first denial ends the call, with the
    code `POLICY_DENIED` and the policy's reason. A question without an answer is the plugin's failure, so `on_error`
    decides about the call, unless the plugin is set to fail open.

    Source: docs/plugins/policy_decision.md.
    """

    settings_model = PolicyDecisionSettings
    guards = GUARDED_HOOKS

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings; nothing is opened yet.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: The endpoint is refused.
        """
        super().__init__(config)
        self._settings = settings = PolicyDecisionSettings.model_validate(config.config or {})
        adapter = OpaResolver if settings.engine == "opa" else AuthZenResolver
        resolver: PdpResolver = adapter(
            settings.endpoint,
            settings.timeout_ms,
            {name: value.get_secret_value() for name, value in settings.headers.items()},
            settings.fail_open,
            retries=settings.retries,
            tls=settings.tls,
        )
        self._resolver = CachingResolver(resolver, settings.cache_ttl_s) if settings.cache_ttl_s else resolver

    async def shutdown(self) -> None:
        """Close the connections."""
        await self._resolver.close()

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Ask about every target of the call.

        Raises:
            PdpError: A question got no answer.
        """
        contexts: list[dict[str, Any]] = []
        for target in targets_of(call.hook, call.payload):
            result = await self._resolver.resolve(self._question(call, target))
            if not result.allowed:
                return PluginResult(continue_processing=False, violation=_violation(call, target, result))
            if result.context:
                contexts.append({"target": target.name, **result.context})
        return PluginResult(metadata={self.name: {"context": contexts}} if contexts else {})

    def _question(self, call: GuardedCall, target: Target) -> dict[str, Any]:
        """The facts of a question; what is not known is left out."""
        shared = call.context.global_context
        session = session_key(call.context, call.extensions)
        facts = {
            "subject": _subject(call.context),
            "action": call.stage,
            # A tool is named by its text, as policies have it, and as an endpoint's placeholder needs it.
            "tool": target.name if target.kind == "tool" else {"type": target.kind, "id": target.name},
            "args": target.args if self._settings.send_args else None,
            "session": {"id": session.value} if session.kind == "session" else None,
            "tenant_id": shared.tenant_id,
            "server_id": target.server or shared.server_id,
        }
        return {name: value for name, value in facts.items() if value is not None}


def _subject(context: PluginContext) -> dict[str, Any] | None:
    name = user_id(context)
    if not name:
        return None
    known = context.global_context.user_context
    more = {"roles": known.roles, "groups": known.groups, "teams": known.teams or []} if known is not None else {}
    return {"type": "user", "id": name, **{key: value for key, value in more.items() if value}}


def _violation(call: GuardedCall, target: Target, result: PdpResult) -> PluginViolation:
    return PluginViolation(
        reason=result.reason or "Denied by policy",
        description=f"The policy does not allow {call.stage} of {target.kind} '{target.name}'.",
        code=CODE,
        details={"target": target.name, "kind": target.kind},
        http_status_code=HTTP_FORBIDDEN,
    )
