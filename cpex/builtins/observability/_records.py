"""How records are written: timestamps and lines."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from cpex.framework import clock

# `json.dumps` would make an encoder for every record.
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def timestamp() -> str:
    """The framework's time in UTC, to the microsecond.

    Source: RFC 3339, section 5.6.
    """
    return clock.now().astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode(record: dict[str, Any]) -> bytes:
    """One line: a JSON object and a line end.

    SECURITY: pure ASCII, so that no text from outside can start a line, steer a terminal or reorder what is read.

    Raises:
        ValueError: A number is not one of JSON's; `plain` leaves none.
    """
    return _ENCODER.encode(record).encode("ascii") + b"\n"
