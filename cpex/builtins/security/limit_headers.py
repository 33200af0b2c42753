"""HTTP header fields that tell a client of a limit: when to come back, and how much is left.

Sources: RFC 9110, section 10.2.3 (`Retry-After`); RFC 6585, section 4 (429); RFC 9651 (structured fields);
draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit`, `RateLimit-Policy`). `X-RateLimit-*` has no standard: here as most
services send it, with the reset as seconds since the epoch.
"""

from __future__ import annotations

import math

from cpex.builtins.store.port import Taken

__all__ = ["HTTP_TOO_MANY_REQUESTS", "limit_headers", "retry_after"]

HTTP_TOO_MANY_REQUESTS = 429
_WINDOW_S = 60


def retry_after(seconds: float) -> str:
    """The value of `Retry-After`: whole seconds, at least one, never too few."""
    return str(max(1, math.ceil(seconds)))


def limit_headers(style: str, name: str, per_minute: int, taken: Taken, now_s: float) -> dict[str, str]:
    """Header fields about a limit of so many calls a minute, after a take.

    Args:
        style: `all`, `standard`, `legacy` or `none`.
        name: What the standard fields call the limit.
    """
    headers: dict[str, str] = {}
    if style in ("all", "standard"):
        label = _string(name)
        headers["RateLimit-Policy"] = f"{label};q={per_minute};w={_WINDOW_S}"
        headers["RateLimit"] = f"{label};r={taken.remaining};t={math.ceil(taken.full_after_s)}"
    if style in ("all", "legacy"):
        headers["X-RateLimit-Limit"] = str(per_minute)
        headers["X-RateLimit-Remaining"] = str(taken.remaining)
        headers["X-RateLimit-Reset"] = str(math.ceil(now_s + taken.full_after_s))
    return headers


def _string(text: str) -> str:
    """A structured-field string. SECURITY: it holds printable ASCII only, so no name can end the header line."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
