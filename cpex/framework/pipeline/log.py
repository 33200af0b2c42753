"""The managers' log, for the parts of the framework that write into it.

Operators and hosts know one logger for starts, denials and failures: `cpex.framework.manager`. Tests of hosts put
another one in its place by replacing `cpex.framework.manager.logger`, so that name is asked for with each line.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

__all__ = ["manager_logger"]

_NAME = "cpex.framework.manager"


class _ManagerLogger:
    """Stands for whatever logger the managers have at the moment."""

    __slots__ = ("_own",)

    def __init__(self) -> None:
        self._own = logging.getLogger(_NAME)

    def __getattr__(self, name: str) -> Any:
        # Not an import: the managers stand above the engine, and an engine may run without one.
        return getattr(getattr(sys.modules.get(_NAME), "logger", self._own), name)


# It has every attribute of a logger, because it hands each request on to one.
manager_logger = cast("logging.Logger", _ManagerLogger())
