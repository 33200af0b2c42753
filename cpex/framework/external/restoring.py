"""What comes back as it was sent is the sender's own.

A form that flattens values sends a set as a list, a secret as asterisks, over some transports a whole number as a
float. An answer that repeats such a value must not replace the original by it. So an answer is laid beside what was
sent: where the two agree, the sender's object stands, types and all; what differs is the plugin's change.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = ["restored"]


def restored(original: Any, sent: Any, received: Any) -> Any:
    """`received`, with the parts of `original` in place of what is as it was sent.

    Args:
        original: What was encoded.
        sent: `original` as the other end saw it.
        received: What the other end made of `sent`, in the same form.
    """
    if isinstance(received, dict) and isinstance(sent, dict):
        return {
            key: restored(_member(original, key), sent[key], item) if key in sent else item
            for key, item in received.items()
        }
    if isinstance(received, list) and isinstance(sent, list) and isinstance(original, list | tuple):
        if len(received) == len(sent) == len(original):
            return [restored(*each) for each in zip(original, sent, received, strict=True)]
        return received
    # A truth value equals a number; taking one for the other would lose the plugin's change.
    alike = received == sent and isinstance(received, bool) is isinstance(sent, bool)
    return original if alike and original is not _MISSING else received


_MISSING: Any = object()


def _member(owner: Any, key: str) -> Any:
    if isinstance(owner, BaseModel):
        return getattr(owner, key, _MISSING)
    return owner.get(key, _MISSING) if isinstance(owner, dict) else _MISSING
