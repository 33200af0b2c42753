"""The extensions of a request, whose operations may each lay slots over them and change them side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

from cpex.framework.extensions import Extensions

__all__ = ["Taken", "overlaid", "taken"]


class Taken(NamedTuple):
    """What is left when an operation's changes have been kept."""

    shared: Extensions
    """Of the request."""
    own: Extensions | None
    """Of the operation alone."""


def overlaid(shared: Extensions | None, own: Extensions | None) -> Extensions | None:
    """The request's extensions with the slots of one operation over them."""
    if own is None or shared is None:
        return own if own is not None else shared
    return shared.model_copy(update=_filled(own))


def taken(shared: Extensions | None, own: Extensions | None, before: Extensions | None, after: Extensions) -> Taken:
    """Keep the slots that plugins changed, with those that parallel operations changed meanwhile.

    Args:
        shared: Of the request, as they stand now.
        own: The slots that belong to the operation alone.
        before: What plugins were shown.
        after: What they left.
    """
    old = before if before is not None else Extensions()
    changed = {
        name: getattr(after, name) for name in Extensions.model_fields if getattr(after, name) is not getattr(old, name)
    }
    kept = {name: changed.pop(name) for name in list(changed) if own and getattr(own, name) is not None}
    mine = shared if shared is not None else Extensions()
    joined = {name: _joined(getattr(mine, name), getattr(old, name), new) for name, new in changed.items()}
    return Taken(mine.model_copy(update=joined), own.model_copy(update=kept) if own is not None and kept else own)


def _filled(extensions: Extensions) -> dict[str, Any]:
    values = {name: getattr(extensions, name) for name in Extensions.model_fields}
    return {name: value for name, value in values.items() if value is not None}


def _joined(mine: Any, old: Any, new: Any) -> Any:
    """A slot that an operation changed from `old` to `new`, while another may have changed it to `mine`."""
    if mine is old or mine is None or new is None:
        return new
    if (labels := getattr(mine, "labels", None)) is not None:
        # Labels only grow: what one operation tainted stays so, whichever ended first.
        return new.model_copy(update={"labels": new.labels | labels})
    if isinstance(mine, dict) and isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        gone = before.keys() - new.keys()
        written = {key: value for key, value in new.items() if key not in before or before[key] is not value}
        return {key: value for key, value in mine.items() if key not in gone} | written
    if (chain := getattr(mine, "chain", None)) is not None:
        known = len(old.chain) if old is not None else 0
        for hop in new.chain[known:]:
            if hop not in chain:
                mine = mine.with_new_hop(hop)
        return mine
    return new
