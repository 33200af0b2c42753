"""The HTTP request that carried the operation."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import Field, model_validator

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["HttpExtension"]

logger = logging.getLogger(__name__)

_OTHER_SHAPE = "request_headers"
"""What other hosts call the headers of the request."""
_told: set[str] = set()
_MOST_TOLD = 100
"""Unknown keys that are told in one process; they come from outside."""


class HttpExtension(ExtensionModel):
    """The request's headers, credentials included.

    Hosts that send `request_headers` instead are understood. Other keys are left out, with one WARNING for each: they
    are what guards that read headers will not see.
    """

    headers: dict[str, str] = Field(default_factory=dict)
    """Spelled as the host received them."""

    @model_validator(mode="before")
    @classmethod
    def _read_other_shapes(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.keys() <= cls.model_fields.keys():
            return data
        if _OTHER_SHAPE in data and "headers" not in data:
            data = {"headers": data[_OTHER_SHAPE], **{key: data[key] for key in data if key != _OTHER_SHAPE}}
        for key in sorted(map(str, data.keys() - cls.model_fields.keys())):
            if key not in _told and len(_told) < _MOST_TOLD:
                _told.add(key)
                logger.warning("HttpExtension has no `%s`, so what stands there is left out; known: headers", key[:64])
        return data
