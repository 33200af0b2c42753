"""What a plugin answers, and what the host gets back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from cpex.framework.extensions import Extensions
from cpex.framework.models.lazy import PENDING, Defaults, LazyModel, set_raw_dict
from cpex.framework.models.record import ControlExecutionRecord

MCP_INTERNAL_ERROR = -32603
"""JSON-RPC 2.0, "Error object": internal error."""


class PluginViolation(BaseModel):
    """Why a plugin denied an operation."""

    reason: str
    description: str
    code: str
    details: dict[str, Any] | None = Field(default_factory=dict)
    mcp_error_code: int | None = None
    http_status_code: int | None = None
    http_headers: dict[str, str] | None = None
    _plugin_name: str = PrivateAttr(default="")

    @property
    def plugin_name(self) -> str:
        """The plugin that denied; set by the framework from its trusted configuration."""
        return self._plugin_name

    @plugin_name.setter
    def plugin_name(self, name: str) -> None:
        # A host may hand over anything; the annotation is a promise only to type checkers.
        if not isinstance(name, str) or not name.strip():
            raise ValueError("Name must be a non-empty string")
        self._plugin_name = name


class PluginErrorModel(BaseModel):
    """Why a plugin failed."""

    message: str
    plugin_name: str
    code: str | None = ""
    details: dict[str, Any] | None = Field(default_factory=dict)
    mcp_error_code: int = MCP_INTERNAL_ERROR


T = TypeVar("T")


class PluginResult(LazyModel, Generic[T]):
    """The answer of one plugin, and of a whole hook call.

    `PluginResult[X]` is one class per `X`: a dict given as `modified_payload` is validated into `X`, an `X` is kept as
    it is, anything else is refused. A bare `PluginResult` takes any payload.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    continue_processing: bool = True
    """False asks to stop."""
    modified_payload: T | None = None
    modified_extensions: Extensions | None = None
    violation: PluginViolation | None = None
    metadata: dict[str, Any] | None = Field(default_factory=dict)
    denial_metadata: dict[str, Any] | None = None
    """Numbers and booleans about a denial, for telemetry."""
    background_tasks: list[asyncio.Task[Any]] = Field(default_factory=list, exclude=True)
    http_headers: dict[str, str] | None = None
    retry_delay_ms: int = 0
    """Milliseconds; the largest of all plugins reaches the host."""
    executions: list[ControlExecutionRecord] = Field(default_factory=list)

    if not TYPE_CHECKING:
        # Hidden from type checkers, which know the signature from the fields.
        def __init__(self, /, **data: Any) -> None:
            # Every plugin makes one for each call. A plain answer needs no validation: what it does not say follows
            # when somebody looks.
            if (plain := self.__cpex_plain__) is not None:
                if data.get("continue_processing") is True and len(data) == 1:
                    data[PENDING] = plain[1]
                    set_raw_dict(self, data)
                    return
                if not data:
                    data["continue_processing"] = True
                    data[PENDING] = plain[0]
                    set_raw_dict(self, data)
                    return
            super().__init__(**data)

        # Pydantic's own mark: validating into this class need not come through here.
        __init__.__pydantic_base_init__ = True
        __cpex_plain__ = None

        @classmethod
        def __pydantic_init_subclass__(cls, **options: Any) -> None:
            super().__pydantic_init_subclass__(**options)
            # A class that adds fields or validators of its own is always validated.
            plain = cls.__pydantic_generic_metadata__["origin"] is PluginResult
            cls.__cpex_plain__ = _PLAIN if plain else None

    async def wait_for_background_tasks(self) -> list[PluginErrorModel]:
        """Wait for the background plugins of this call and return the errors they ended with. Never raises."""
        tasks = self.background_tasks
        if all(task.done() and not task.cancelled() and task.exception() is None for task in tasks):
            outcomes = [task.result() for task in tasks]
        else:
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        # A task that ran several plugins ends with a list of their errors.
        errors = [each for outcome in outcomes for each in (outcome if isinstance(outcome, list) else [outcome])]
        return [error for error in errors if isinstance(error, PluginErrorModel)]


_PLAIN = (Defaults(PluginResult, ()), Defaults(PluginResult, ("continue_processing",)))
if not TYPE_CHECKING:
    PluginResult.__cpex_plain__ = _PLAIN
