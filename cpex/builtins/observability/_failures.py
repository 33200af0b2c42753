"""Failures of a plugin that must not stop anything, and must not go unseen either."""

from __future__ import annotations

import logging
import threading

from cpex.framework import clock

LOG_EVERY_S = 60.0


class Failures:
    """Counts failures, logs at most one a minute, and in the end how many that left out."""

    def __init__(self, logger: logging.Logger, plugin_name: str) -> None:
        self._logger = logger
        self._plugin_name = plugin_name
        self._lock = threading.Lock()
        self._logged_at: float | None = None
        self._untold = 0
        self.count = 0
        """How many there were."""

    def report(self, what: str, error: BaseException) -> None:
        """Count a failure, and log it at ERROR unless one was logged less than a minute ago. Safe in any thread."""
        with self._lock:
            self.count += 1
            now = clock.monotonic()
            if self._logged_at is not None and now - self._logged_at < LOG_EVERY_S:
                self._untold += 1
                return
            self._logged_at, self._untold = now, 0
        self._logger.error(
            "Plugin '%s': %s: %s (%d such failures so far; logged at most once a minute)",
            self._plugin_name,
            what,
            error,
            self.count,
            exc_info=None if isinstance(error, OSError) else error,
        )

    def tell_rest(self) -> None:
        """Log the total, if failures were counted since one was logged last. Safe in any thread."""
        with self._lock:
            untold, self._untold = self._untold, 0
        if untold:
            self._logger.error(
                "Plugin '%s': %d failures in all, the last %d of them not logged", self._plugin_name, self.count, untold
            )
