"""Extensions on their way to a worker and back.

A slot that is not there is one that the plugin may not see. Headers that hold credentials never cross, in either
direction; the host keeps them and puts them back. What a plugin may change is decided by the host's pipeline, not here.

Source: docs/isolated.md, "Extensions".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from cpex.framework.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.isolated.credentials import SENSITIVE_HEADERS

__all__ = [
    "EXTENSIONS_FIELD",
    "MODIFIED_EXTENSIONS_FIELD",
    "reconstruct_extensions",
    "returned_extensions",
    "sanitize_extensions_http",
    "slots_for_host",
    "slots_for_worker",
]

logger = logging.getLogger(__name__)

EXTENSIONS_FIELD = "extensions"
MODIFIED_EXTENSIONS_FIELD = "modified_extensions"
_HEADER_MAPS = ("headers", "request_headers", "response_headers")
"""Ends of other builds divide the headers; ours have one map."""


def sanitize_extensions_http(extensions: Any) -> Any:
    """Extensions without the headers that hold credentials; the same object when there are none in it."""
    http = getattr(extensions, "http", None)
    if http is None:
        return extensions
    kept = {}
    for name in _HEADER_MAPS:
        headers = getattr(http, name, None)
        if isinstance(headers, Mapping) and (safe := _without_sensitive(headers)) != headers:
            kept[name] = safe
    return extensions.model_copy(update={"http": http.model_copy(update=kept)}) if kept else extensions


def _without_sensitive(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if str(name).lower() not in SENSITIVE_HEADERS}


def slots_for_worker(extensions: Extensions) -> dict[str, BaseModel | dict[str, Any]]:
    """`{slot: value}` of what a plugin may see, without headers that hold credentials.

    Args:
        extensions: As the pipeline shows them to the plugin.
    """
    return _slots(sanitize_extensions_http(extensions))


def _slots(extensions: Extensions) -> dict[str, Any]:
    named = {name: getattr(extensions, name) for name in Extensions.model_fields}
    slots = {name: value for name, value in named.items() if value is not None}
    if isinstance(http := slots.get("http"), HttpExtension):
        # Both names, for ends that know the other one.
        slots["http"] = {"headers": http.headers, "request_headers": http.headers}
    return slots


def reconstruct_extensions(raw: object) -> Extensions | None:
    """Extensions from what the host sent. A slot that is unknown or invalid is left out, with a WARNING.

    Returns:
        `None` when there is nothing in it.
    """
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        logger.warning("The extensions that the host sent are no object, and were left out")
        return None
    slots: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in Extensions.model_fields:
            logger.warning("The host sent an unknown extension slot %r, which was left out", name)
            continue
        try:
            slots[name] = getattr(Extensions.model_validate({name: _one_header_map(name, value)}), name)
        except ValidationError as error:
            # The text of the error would quote the value.
            logger.warning("The host sent an invalid extension slot %s (%s)", name, error.errors()[0]["type"])
    return Extensions.model_validate(slots) if slots else None


def _one_header_map(slot: str, value: Any) -> Any:
    """The header map of another build under the name that ours has for it."""
    if slot != "http" or not isinstance(value, Mapping) or not value.get("request_headers"):
        return value
    slot_value = dict(value)
    theirs = slot_value.pop("request_headers")
    if not slot_value.get("headers"):
        slot_value["headers"] = theirs
    elif slot_value["headers"] != theirs:
        # Two maps: one of them is not read, and the model tells of that.
        slot_value["request_headers"] = theirs
    return slot_value


def slots_for_host(extensions: Extensions, raw: object) -> dict[str, Any]:
    """`{slot: value}` of what a plugin returned.

    Args:
        raw: What the host had sent. What is in its http slot beside the one map that ours has goes back as it came.
    """
    slots = _slots(sanitize_extensions_http(extensions))
    sent = raw.get("http") if isinstance(raw, Mapping) else None
    if "http" in slots and isinstance(sent, Mapping):
        others = {
            name: _without_sensitive(value) if name in _HEADER_MAPS and isinstance(value, Mapping) else value
            for name, value in sent.items()
        }
        slots["http"] = {**others, **slots["http"]}
    return slots


def returned_extensions(shown: Extensions | None, raw: object) -> Extensions | None:
    """What a plugin returned, laid over what it was shown.

    A slot that is null or left out says nothing. Headers that were kept back from the plugin are put back.

    Returns:
        `None` when nothing was returned.

    Raises:
        pydantic.ValidationError: A slot holds values of wrong types.
    """
    if not isinstance(raw, Mapping):
        return None
    slots = {name: _one_header_map(name, value) for name, value in raw.items() if value is not None}
    slots = {name: value for name, value in slots.items() if name in Extensions.model_fields}
    if not slots:
        return None
    returned = sanitize_extensions_http(Extensions.model_validate(slots))
    before = shown if shown is not None else Extensions()
    changed = {name: getattr(returned, name) for name in slots}
    if isinstance(changed.get("http"), HttpExtension) and before.http is not None:
        kept = {name: value for name, value in before.http.headers.items() if name.lower() in SENSITIVE_HEADERS}
        changed["http"] = changed["http"].model_copy(update={"headers": {**changed["http"].headers, **kept}})
    return before.model_copy(update=changed)
