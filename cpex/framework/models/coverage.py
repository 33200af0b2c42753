"""Which hooks may not be missing around an operation, and what happens when one is."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, field_validator

__all__ = ["CoverageConfig", "CoverageMode"]


class CoverageMode(StrEnum):
    """What follows when an operation went past a mandatory hook."""

    RAISE = "raise"
    """The operation is stopped, or its result withheld, with a `CoverageError`."""
    ALARM = "alarm"
    """It goes on; a WARNING is logged and the gap is counted."""
    OFF = "off"
    """Nobody looks."""


class CoverageConfig(BaseModel):
    """The hooks that a host's guard must have run."""

    mode: CoverageMode = CoverageMode.RAISE
    """`raise` stops the operation, `alarm` logs and counts, `off` does not look."""
    mandatory: list[str] = Field(default_factory=list)
    """Names of hooks. One has run when at least one plugin came to its end in it."""

    @field_validator("mode", mode="before")
    @classmethod
    def _read_yaml(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare `off` as a truth value.
        return CoverageMode.OFF if value is False else value
