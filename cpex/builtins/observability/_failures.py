"""Failures of a plugin that must not stop anything, and must not go unseen either."""

from __future__ import annotations

import logging
import threading

from cpex.framework import clock

LOG_EVERY_S = 60.0


class Failures:
    """Counts failures and logs at most one a minute."""

    def __init__(self, logger: logging.Logger, plugin_name: str) -> None:
        self._logger = logger
        self._plugin_name = plugin_name
        self._lock = threading.Lock()
        self._logged_at: float | None = None
        self.count = 0
        """How many there were."""

    def report(self, what: str, error: BaseException) -> None:
        """Count a failure, and log it at ERROR unless one was logged less than a minute ago. Safe in any thread."""
        with self._lock:
            self.count += 1
            now = clock.monotonic()
            if self._logged_at is not None and now - self._logged_at < LOG_EVERY_S:
                return
            self._logged_at = now
        self._logger.error(
            "Plugin '%s': %s: %s (%d such failures so far; logged at most once a minute)",
            self._plugin_name,
            what,
            error,
            self.count,
            exc_info=None if isinstance(error, OSError) else error,
        )
