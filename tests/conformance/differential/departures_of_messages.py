"""Departures in the message format: the published release lists these as weaknesses of its own."""

from __future__ import annotations

from .departure import Departure

MESSAGES: tuple[Departure, ...] = (
    Departure(
        "M1",
        "the text that views show",
        "leaves out media, bytes, descriptions, annotations, error messages and nested messages",
        "is joined by `iter_text`, which leaves out nothing, and `rewrite_text`, which replaces it",
    ),
    Departure("M2", "messages inside a prompt's result", "are never visited", "are visited with `recursive=True`"),
    Departure(
        "M3",
        "characters beyond ASCII in arguments and results",
        "are escapes",
        "are escapes in `content`, as they are in `text`",
    ),
    Departure(
        "M4",
        "the part behind a view",
        "has no place, and is replaced by hand",
        "has `index` and `path`, and `replace` and `replace_text`",
    ),
    Departure(
        "M5",
        "patterns over addresses",
        "are dodged by line ends, percent-encoding, `..` and case",
        "are compared with one spelling of the address",
    ),
    Departure(
        "M6",
        "names in addresses",
        "are put in as they are, so that one tool can imitate another's",
        "are encoded where patterns are compared; `uri` itself is as before",
    ),
    Departure(
        "M7",
        "`object` and `data_policy`",
        "are found by the bare name",
        "are found by address and namespaced name first",
    ),
    Departure("M8", "headers with credentials in plain data", "are those of three names", "are those of nine"),
    Departure(
        "M9", "`include_content=False`", "still tells arguments", "still does; `include_arguments=False` does not"
    ),
    Departure(
        "M10",
        "`size_bytes` in `to_dict`",
        "is measured where there is text, and so differs from the view's",
        "is the view's; `measured_bytes` measures",
    ),
    Departure(
        "M11", "`args` and annotations of a view", "are the message's own dicts", "refuse edits with a `TypeError`"
    ),
    Departure(
        "M12",
        "a part without a kind, or that is no part",
        "is a bare `ValueError` or `AttributeError`",
        "is a `ValidationError` with its place",
    ),
    Departure(
        "M13",
        "a part of an unknown kind",
        "refuses the whole message",
        "does so by default; is kept where unknown things are to be kept",
    ),
    Departure(
        "M14",
        "unknown keys of parts",
        "vanish",
        "vanish by default, as readers of 0.1 rely on; are refused or kept where the reader asks",
    ),
    Departure("M15", "`blob` in JSON", "must be UTF-8 text", 'may be `{"base64": …}`'),
    Departure("M16", "`schema_version`", "is any text", "must be of major version 2"),
    Departure(
        "M17",
        "changing a resource by `model_copy`",
        "can leave both text and bytes",
        "still can; `checked_copy` cannot",
    ),
    Departure("M18", "claims, classification, delegation, tags, trace", "are not told by views", "are"),
    Departure("M19", "plain data with dates or bytes", "fails when it is written as JSON", "is JSON in `to_opa_input`"),
    Departure(
        "M20", "a resource on `resource_pre_fetch`", "is read, and stands after", "is written, and stands before"
    ),
    Departure(
        "M21",
        "messages of model providers and MCP",
        "are for the host to convert",
        "are converted by `cpex.framework.cmf.adapters`",
    ),
)
