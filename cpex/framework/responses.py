"""A JSON response for hosts on Starlette or FastAPI. The only module here that needs a web framework."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic_core import to_json

try:
    # Not a plain import: the framework's own checks run without a web framework.
    _JSONResponse: Any = importlib.import_module("starlette.responses").JSONResponse
except ModuleNotFoundError as error:
    raise ImportError(
        "`ORJSONResponse` needs the package `starlette`; install it with `pip install starlette`"
    ) from error

try:
    import orjson
except ModuleNotFoundError:
    # mypy: it is a module elsewhere.
    orjson = None  # type: ignore[assignment]

__all__ = ["ORJSONResponse"]


# The base is typed as `Any`, see above.
class ORJSONResponse(_JSONResponse):  # type: ignore[misc]
    """A JSON response rendered by orjson: dates, UUIDs and numpy arrays included, keys of any simple type.

    Where orjson is not installed, pydantic renders it: all but numpy arrays, and times in UTC end in `Z`.
    """

    def render(self, content: Any) -> bytes:
        """The body, UTF-8."""
        if orjson is None:
            return to_json(content, inf_nan_mode="null")
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
