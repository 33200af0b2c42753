"""What the framework and plugins log, on standard error, in a form that fits between a command's own lines."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator

__all__ = ["ENGINE", "LogPrinter", "logs_to_stderr"]

ENGINE = "cpex.framework.manager"
"""Logger of the pipeline: denials, failures, plugins that do not start."""
_SHOWN_OF_A_KIND = 3


class LogPrinter(logging.Handler):
    """Prints the first messages of each kind and counts the others.

    Attributes:
        thresholds: Least level by logger; a command raises it for what it tells by itself.
        hidden: Messages that were left out because there were too many like them.
    """

    def __init__(self, verbose: bool) -> None:
        super().__init__(logging.WARNING)
        self.thresholds: dict[str, int] = {}
        self.hidden = 0
        self._verbose = verbose
        self._seen: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message, with its traceback when everything is to be shown."""
        if not self._verbose and not self._is_wanted(record):
            return
        try:
            text = f"{record.levelname.lower()}: {record.getMessage()}\n"
            if self._verbose and record.exc_info:
                text += logging.Formatter().formatException(record.exc_info) + "\n"
            sys.stderr.write(text)
        # A message that cannot be formatted is its author's fault and must not end the command.
        except Exception:
            self.handleError(record)

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        if record.levelno < self.thresholds.get(record.name, logging.WARNING):
            return False
        kind = record.name, str(record.msg)
        self._seen[kind] += 1
        if self._seen[kind] > _SHOWN_OF_A_KIND:
            self.hidden += 1
            return False
        return True


@contextlib.contextmanager
def logs_to_stderr(verbose: bool = False) -> Iterator[LogPrinter]:
    """Print log messages of level WARNING and above as long as the context lasts.

    Args:
        verbose: Print every message, and tracebacks.
    """
    printer = LogPrinter(verbose)
    root = logging.getLogger()
    root.addHandler(printer)
    try:
        yield printer
    finally:
        root.removeHandler(printer)
        if printer.hidden:
            sys.stderr.write(f"note: {printer.hidden:,} more messages like these; `--verbose` shows all\n")
