"""How denials and failures are told to the client.

Source: docs/proxy.md, "What the client sees".
"""

from __future__ import annotations

from typing import Any

from cpex.framework.models.result import PluginViolation

__all__ = [
    "CONNECTION_CLOSED",
    "DENIED",
    "INTERNAL",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "TIMED_OUT",
    "VIOLATION",
    "AnswerError",
    "denial_error",
    "denied_result",
]

INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL = -32600, -32601, -32602, -32603
CONNECTION_CLOSED, TIMED_OUT, DENIED = -32000, -32001, -32003
VIOLATION = "cpex/violation"
"""Key of `_meta` of a denied tool's result, and of `data` of an error."""


class AnswerError(Exception):
    """A request is answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        """Keep what goes to the client: `{"code": ..., "message": ..., "data": ...}`."""
        super().__init__(str(error.get("message")))
        self.error = error

    @classmethod
    def of(cls, code: int, message: str) -> AnswerError:
        """An error of the proxy itself."""
        return cls({"code": code, "message": message})


def denial_error(violation: PluginViolation) -> AnswerError:
    """The error that a denial is, where results have no room for failures, or the plugin named an error code."""
    code = violation.mcp_error_code if violation.mcp_error_code is not None else DENIED
    return AnswerError({"code": code, "message": _text(violation), "data": {VIOLATION: _facts(violation)}})


def denied_result(violation: PluginViolation) -> dict[str, Any]:
    """The result of a tool that was not called, or whose answer is withheld: models read results, hosts errors."""
    content = [{"type": "text", "text": _text(violation)}]
    return {"content": content, "isError": True, "_meta": {VIOLATION: _facts(violation)}}


def _text(violation: PluginViolation) -> str:
    return f"denied: {violation.reason} [{violation.code}]"


def _facts(violation: PluginViolation) -> dict[str, Any]:
    # SECURITY: `details` are for the host; they may hold what was found, the secret itself included.
    facts = {"reason": violation.reason, "description": violation.description, "code": violation.code}
    return facts | ({"plugin": violation.plugin_name} if violation.plugin_name else {})
