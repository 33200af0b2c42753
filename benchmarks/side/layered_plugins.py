"""The four layers as a user of either release would write them: plain, and with public names only."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpex.framework import (
    Plugin,
    PluginConfig,
    PluginContext,
    PluginPayload,
    PluginResult,
    PluginViolation,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)

_FORBIDDEN = re.compile(r"\bdrop\s+table\b|\bdelete\s+from\s+\w+\s*$|\brm\s+-rf\s+/|\.aws/credentials", re.IGNORECASE)
_CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
_OTHERS = (
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "[EMAIL-REDACTED]"),
    (re.compile(r"\b(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"), "[SSN-REDACTED]"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"), "[IBAN-REDACTED]"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), "[IP-REDACTED]"),
    (re.compile(r"(?:\+\d{1,3}[ -])?\(?\d{3}\)?[ -]\d{3}[ -]\d{4}\b"), "[PHONE-REDACTED]"),
)


def _content(payload: PluginPayload) -> tuple[str, Any]:
    """The field that holds what is sent or what came back, and its value."""
    if isinstance(payload, ToolPostInvokePayload):
        return "result", payload.result
    return "args", getattr(payload, "args", None)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


class TokenBudget(Plugin):
    """Denies what would take a conversation over its budget; a token is four characters of JSON."""

    def __init__(self, config: PluginConfig) -> None:
        """Start every conversation at nothing."""
        super().__init__(config)
        self._budget = int((config.config or {}).get("budget", 100_000))
        self._spent: Counter[str] = Counter()

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Charge the arguments to the conversation."""
        session = str(context.global_context.metadata.get("session_id"))
        tokens = len(json.dumps(payload.args)) // 4 + 1
        if self._spent[session] + tokens > self._budget:
            violation = PluginViolation(reason="budget spent", description="no tokens are left", code="BUDGET")
            return PluginResult(continue_processing=False, violation=violation)
        self._spent[session] += tokens
        return PluginResult()


class ContentPolicy(Plugin):
    """Denies a few patterns in any string."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Search the arguments."""
        if any(_FORBIDDEN.search(text) for text in _strings(payload.args)):
            violation = PluginViolation(reason="forbidden", description="a pattern was found", code="CONTENT")
            return PluginResult(continue_processing=False, violation=violation)
        return PluginResult()


class PiiRedactor(Plugin):
    """Replaces cards, e-mail addresses, phone and social security numbers, IBANs and IP addresses at any depth."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Redact the arguments."""
        return self._redact(payload)

    async def tool_post_invoke(self, payload: ToolPostInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Redact the result."""
        return self._redact(payload)

    def _redact(self, payload: PluginPayload) -> PluginResult[Any]:
        name, value = _content(payload)
        redacted = _rewritten(value)
        if redacted == value:
            return PluginResult()
        return PluginResult(modified_payload=payload.model_copy(update={name: redacted}))


def _rewritten(value: Any) -> Any:
    if isinstance(value, str):
        return _redacted(value)
    if isinstance(value, dict):
        return {key: _rewritten(item) for key, item in value.items()}
    return [_rewritten(item) for item in value] if isinstance(value, list) else value


def _redacted(text: str) -> str:
    text = _CARD.sub(lambda found: "[CARD-REDACTED]" if _is_card(found[0]) else found[0], text)
    for pattern, label in _OTHERS:
        text = pattern.sub(label, text)
    return text


def _is_card(text: str) -> bool:
    digits = [int(char) for char in reversed(text) if char.isdigit()]
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


class AuditLog(Plugin):
    """Appends one JSON line a call to a file."""

    def __init__(self, config: PluginConfig) -> None:
        """Open the file for appending, line by line."""
        super().__init__(config)
        # It is open for as long as the plugin runs.
        self._file = Path((config.config or {})["path"]).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Write down what is asked."""
        return self._write("tool_pre_invoke", payload, context)

    async def tool_post_invoke(self, payload: ToolPostInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Write down what came back."""
        return self._write("tool_post_invoke", payload, context)

    async def shutdown(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, hook: str, payload: PluginPayload, context: PluginContext) -> PluginResult[Any]:
        asked = context.global_context
        record = {"hook": hook, "request": asked.request_id, "user": asked.user, "payload": payload.model_dump()}
        self._file.write(json.dumps(record, default=str) + "\n")
        return PluginResult()
