"""Decisions by any engine that speaks AuthZEN.

Source: OpenID AuthZEN, Authorization API 1.0, "Access Evaluation API" and "Access Evaluations API".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.pdp.base import PdpResult
from cpex.framework.pdp.http import DEFAULT_TIMEOUT_MS, BadAnswer, HttpResolver

__all__ = ["AuthZenResolver"]

_UNKNOWN = "unknown"
_NAMED = ("subject", "action", "tool")
"""Facts that have a member of their own in a request; all others are its context."""


class AuthZenResolver(HttpResolver):
    """Asks an access evaluation endpoint, such as `https://pdp.example.com/access/v1/evaluation`."""

    PREFIX = "AuthZen"

    def __init__(
        self,
        endpoint: str,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        headers: Mapping[str, str] | None = None,
        fail_open: bool = False,
        *,
        evaluations_endpoint: str | None = None,
        connect_timeout_ms: int | None = None,
        retries: int = 0,
        tls: MCPClientTLSConfig | None = None,
    ) -> None:
        """Check the settings; nothing is opened yet.

        Args:
            evaluations_endpoint: Takes many questions in one request; without it `resolve_many` asks one by one.

        Raises:
            ValueError: A setting is refused; the text says which and why.
        """
        more: dict[str, Any] = {"connect_timeout_ms": connect_timeout_ms, "retries": retries, "tls": tls}
        super().__init__(endpoint, timeout_ms, headers, fail_open, **more)
        self._many = (
            _Evaluations(evaluations_endpoint, timeout_ms, headers, fail_open, **more) if evaluations_endpoint else None
        )

    def question(self, input_data: dict[str, Any]) -> dict[str, Any]:
        """An access evaluation request: subject, action, resource, context."""
        context = {key: value for key, value in input_data.items() if key not in _NAMED}
        request = {
            "subject": _subject(input_data.get("subject")),
            "action": _dict_or(input_data.get("action"), lambda text: {"name": text}),
            "resource": _dict_or(input_data.get("tool"), lambda text: {"type": "tool", "id": text}),
        }
        return {**request, "context": context} if context else request

    def answer(self, body: dict[str, Any]) -> PdpResult:
        """`decision`, which denies when it is missing, and what `context` says about it."""
        return _decision(body)

    async def resolve_many(self, inputs: Sequence[dict[str, Any]]) -> list[PdpResult]:
        """Ask several questions; see `PdpResolver.resolve_many`."""
        if self._many is None or not inputs:
            return await super().resolve_many(inputs)
        result = await self._many.resolve({"evaluations": [self.question(each) for each in inputs]})
        answers = result.context.get(_Evaluations.KEY)
        if answers is not None and len(answers) != len(inputs):
            result, answers = self._many.bad_answer(f"{len(answers)} decisions for {len(inputs)} questions"), None
        if answers is None:
            # It failed open: each question gets what the whole request got.
            return [result] * len(inputs)
        return [PdpResult(each.allowed, each.reason, each.context, latency_ms=result.latency_ms) for each in answers]

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await super().close()
        if self._many is not None:
            await self._many.close()


class _Evaluations(HttpResolver):
    """One request with many questions; the decisions lie in the result's context."""

    PREFIX = AuthZenResolver.PREFIX
    KEY = "evaluations"

    def question(self, input_data: dict[str, Any]) -> dict[str, Any]:
        return input_data

    def answer(self, body: dict[str, Any]) -> PdpResult:
        answers = body.get(self.KEY)
        if not isinstance(answers, list) or not all(isinstance(each, dict) for each in answers):
            raise BadAnswer("`evaluations` is not a list of objects")
        return PdpResult(False, context={self.KEY: [_decision(each) for each in answers]})


def _subject(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        if given is not None and not isinstance(given, str):
            raise ValueError(f"`subject` must be an object or a text, not {type(given).__name__}")
        return {"type": _UNKNOWN, "id": given or _UNKNOWN}
    properties = {key: value for key, value in given.items() if key not in ("type", "id")}
    subject = {"type": given.get("type") or _UNKNOWN, "id": given.get("id") or _UNKNOWN}
    return {**subject, "properties": properties} if properties else subject


def _dict_or(given: Any, of_text: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    made: dict[str, Any] = of_text(_UNKNOWN if given is None else str(given))
    return made


def _decision(body: dict[str, Any]) -> PdpResult:
    decision = body.get("decision", False)
    # SECURITY: the text "false" is true to Python.
    if not isinstance(decision, bool):
        raise BadAnswer(f"`decision` must be true or false, not {type(decision).__name__}")
    context = body.get("context")
    context = context if isinstance(context, dict) else {}
    return PdpResult(decision, _reason(context.get("reason")), context)


def _reason(given: Any) -> str | None:
    if isinstance(given, dict):
        given = given.get("message") or given.get("detail")
    return given if isinstance(given, str) else None
