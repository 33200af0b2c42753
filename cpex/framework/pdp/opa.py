"""Decisions by Open Policy Agent.

Source: Open Policy Agent, REST API, "Data API", "Get a Document (with Input)".
"""

from __future__ import annotations

import logging
from typing import Any

from cpex.framework.pdp.base import FAIL_OPEN, PdpResult
from cpex.framework.pdp.http import HttpResolver

__all__ = ["OpaResolver"]

logger = logging.getLogger(__name__)


class OpaResolver(HttpResolver):
    """Asks for a document of OPA's data API, such as `http://opa:8181/v1/data/cpex/authz/allow`.

    The document is a boolean, or an object with `allow` and, as policies often have it, `deny` with reasons.
    """

    PREFIX = "OPA"

    def question(self, input_data: dict[str, Any]) -> dict[str, Any]:
        """The facts, unchanged, as `input`."""
        return {"input": input_data}

    def answer(self, body: dict[str, Any]) -> PdpResult:
        """The decision, where there is a real boolean; anything else denies unless the resolver fails open.

        A `deny` that is not empty denies, whatever `allow` says.
        """
        result = body.get("result")
        if isinstance(result, bool):
            return PdpResult(result)
        if not isinstance(result, dict):
            what = "is undefined" if "result" not in body else f"is {type(result).__name__}, not a boolean or an object"
            return self._undecided(f"result {what}", {})
        deny = result.get("deny")
        if deny:
            return PdpResult(False, _first_reason(deny), result)
        allow = result.get("allow", False)
        # SECURITY: the text "no" is true to Python.
        if not isinstance(allow, bool):
            return self._undecided(f"result.allow is {type(allow).__name__}, not a boolean", result)
        return PdpResult(allow, context=result)

    def _undecided(self, what: str, context: dict[str, Any]) -> PdpResult:
        logger.warning(
            "OPA %s (%s), so the call is %s; see whether the path names a rule of the policy",
            what,
            self._endpoint.shown,
            "let pass, because the resolver fails open" if self.fail_open else "denied",
        )
        return PdpResult(self.fail_open, f"OPA {what}{FAIL_OPEN if self.fail_open else ''}", context)


def _first_reason(deny: Any) -> str | None:
    if isinstance(deny, bool):
        return None
    first = next(iter(deny), None) if isinstance(deny, list) else deny
    if isinstance(first, dict):
        first = first.get("message") or first.get("msg") or next(iter(first), None)
    return None if first is None else str(first)
