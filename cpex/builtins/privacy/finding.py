"""Everything that the settings of the redactor look for, as one finder."""

from __future__ import annotations

from cpex.builtins.privacy.kinds import Finding
from cpex.builtins.privacy.pii_settings import PIIRedactionSettings
from cpex.builtins.privacy.presidio import PresidioFinder
from cpex.builtins.privacy.recognisers import Recognisers

__all__ = ["PiiFinder"]


class PiiFinder:
    """Our recognisers, and beside them those of another engine, which get what is left."""

    def __init__(self, settings: PIIRedactionSettings) -> None:
        """Prepare both.

        Raises:
            ValueError: A phone region or a recogniser is unknown.
            ModuleNotFoundError: A library is not installed; the message names the extra.
        """
        self._ours = Recognisers(settings.types, settings.phone_regions)
        self._presidio = PresidioFinder(settings.presidio) if settings.presidio is not None else None
        self.types = self._ours.types | (self._presidio.types if self._presidio is not None else frozenset())

    def find(self, text: str, key: str = "") -> list[Finding]:
        """See `Finder`."""
        found = self._ours.find(text, key)
        if self._presidio is None or not text:
            return found
        return sorted(found + self._presidio.find(text, found))
