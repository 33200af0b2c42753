"""What the framework and plugins log, on standard error: between a command's own lines, or for a machine to read."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator

from cpex.framework.logs import JsonFormatter, LogFormat, TextFormatter
from cpex.framework.settings import get_log_settings

__all__ = ["ENGINE", "LogPrinter", "logs_to_stderr"]

ENGINE = "cpex.framework.manager"
"""Logger of the pipeline: denials, failures, plugins that do not start."""
_SHOWN_OF_A_KIND = 3


class LogPrinter(logging.Handler):
    """Prints the first messages of each kind and counts the others; in `json` format, each of them.

    Attributes:
        thresholds: Least level by logger; a command raises it for what it tells by itself.
        hidden: Messages that were left out because there were too many like them.
    """

    def __init__(self, verbose: bool, log_format: LogFormat = "text") -> None:
        super().__init__(logging.WARNING)
        self._json = JsonFormatter() if log_format == "json" else None
        self._text = TextFormatter()
        self.thresholds: dict[str, int] = {}
        self.hidden = 0
        self._verbose = verbose
        self._seen: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message, with its traceback when everything is to be shown."""
        if not self._verbose and not self._is_wanted(record):
            return
        try:
            sys.stderr.write(self._line(record) + "\n")
        # A message that cannot be formatted is its author's fault and must not end the command.
        except Exception:
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> str:
        if self._json is not None:
            return self._json.format(record)
        failure = self._text.failure_lines(record) if self._verbose else []
        return "\n".join([f"{record.levelname.lower()}: {self._text.line_of(record)}", *failure])

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        if record.levelno < self.thresholds.get(record.name, logging.WARNING):
            return False
        if self._json is not None:
            return True
        kind = record.name, str(record.msg)
        self._seen[kind] += 1
        if self._seen[kind] > _SHOWN_OF_A_KIND:
            self.hidden += 1
            return False
        return True


def _log_format() -> LogFormat:
    return get_log_settings().log_format


@contextlib.contextmanager
def logs_to_stderr(verbose: bool = False) -> Iterator[LogPrinter]:
    """Print log messages of level WARNING and above as long as the context lasts.

    Args:
        verbose: Print every message, and tracebacks.
    """
    printer = LogPrinter(verbose, _log_format())
    root = logging.getLogger()
    root.addHandler(printer)
    try:
        yield printer
    finally:
        root.removeHandler(printer)
        if printer.hidden:
            sys.stderr.write(f"note: {printer.hidden:,} more messages like these; `--verbose` shows all\n")
