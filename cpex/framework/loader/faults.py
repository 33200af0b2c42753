"""Collecting what is wrong with a configuration, all of it, in order of position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cpex.framework.errors import Fault

__all__ = ["START", "Findings", "Path", "Place", "path_text"]

Path = tuple[Any, ...]
"""Where a value stands: keys and list indexes from the top of the document."""

Place = tuple[int | None, int | None]
"""Line and column, from 1; `None` when unknown."""

START: Place = (1, 1)


def path_text(path: Path) -> str:
    """A path as messages show it, e.g. `plugins[2].mode`; empty for the whole document."""
    text = "".join(f"[{part}]" if type(part) is int else f".{part}" for part in path)
    return text.removeprefix(".")[:200]


class Findings:
    """Faults and warnings of one configuration.

    Attributes:
        file: Shown in places; `None` when the text came from no file.
        strict: Whether what may be lenient counts as a fault or as a warning.
    """

    def __init__(self, file: str | None = None, *, strict: bool = True) -> None:
        self.file = file
        self.strict = strict
        self._faults: list[Fault] = []
        self._warnings: list[Fault] = []

    def fault(self, code: str, message: str, place: Place, path: Path = (), help: str = "") -> None:
        """Add what makes the configuration unusable."""
        self._faults.append(self._make(code, message, place, path, help))

    def warn(self, code: str, message: str, place: Place, path: Path = (), help: str = "") -> None:
        """Add what the operator should know, although the configuration can be used."""
        self._warnings.append(self._make(code, message, place, path, help))

    def lapse(self, code: str, message: str, place: Place, path: Path = (), help: str = "") -> None:
        """Add a fault that is only a warning when the reader asked for leniency."""
        (self.fault if self.strict else self.warn)(code, message, place, path, help)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults in order of position."""
        return _in_order(self._faults)

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """Warnings in order of position."""
        return _in_order(self._warnings)

    def _make(self, code: str, message: str, place: Place, path: Path, help: str) -> Fault:
        line, column = place
        return Fault(
            code=code,
            message=message,
            path=path_text(path),
            file=self.file,
            line=line,
            column=column,
            help=help,
        )


def _in_order(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    unique = dict.fromkeys(faults)
    return tuple(sorted(unique, key=lambda fault: (fault.line or 0, fault.column or 0)))
