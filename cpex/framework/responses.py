"""A JSON response for hosts on Starlette or FastAPI. The only module here that needs a web framework."""

from __future__ import annotations

import importlib
from typing import Any

try:
    import orjson

    # Not a plain import: the framework's own checks run without a web framework.
    _JSONResponse: Any = importlib.import_module("starlette.responses").JSONResponse
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    raise ImportError(
        f"`ORJSONResponse` needs the package `{package}`; install it with `pip install starlette orjson`"
    ) from error

__all__ = ["ORJSONResponse"]


# The base is typed as `Any`, see above.
class ORJSONResponse(_JSONResponse):  # type: ignore[misc]
    """A JSON response rendered by orjson: dates, UUIDs and numpy arrays included, keys of any simple type."""

    def render(self, content: Any) -> bytes:
        """The body, UTF-8."""
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
