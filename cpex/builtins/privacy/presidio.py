"""Personal data of other kinds, found by `presidio-analyzer`: passports, licences, names where a model is at hand.

Its recognisers that are patterns need no model and are named one by one. For those that need one, the host builds an
`AnalyzerEngine` and names the function that returns it. The library is loaded when it is configured.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pydantic import BaseModel, Field, model_validator

from cpex.builtins.privacy.kinds import Finding, PiiType

__all__ = ["PresidioFinder", "PresidioSettings"]

_OURS = {
    "EMAIL_ADDRESS": PiiType.EMAIL,
    "IBAN_CODE": PiiType.IBAN,
    "CREDIT_CARD": PiiType.CARD,
    "US_SSN": PiiType.SSN,
    "IP_ADDRESS": PiiType.IP,
    "PHONE_NUMBER": PiiType.PHONE,
}
"""Its names of the kinds that are known here."""


class PresidioSettings(BaseModel, extra="forbid", frozen=True):
    """What is asked of the library."""

    recognizers: list[str] = []
    """Classes of `presidio_analyzer.predefined_recognizers`, such as `UsPassportRecognizer`."""
    analyzer: str | None = None
    """Dotted path of a function without parameters that returns an `AnalyzerEngine`."""
    entities: list[str] | None = None
    """Names that the analyzer is asked for, such as `PERSON`; without it, all that it knows."""
    language: str = "en"
    """Two letters."""
    min_score: float = Field(default=0.4, ge=0, le=1)
    """Results below it are left alone."""

    @model_validator(mode="after")
    def _something(self) -> PresidioSettings:
        if not self.recognizers and self.analyzer is None:
            raise ValueError("`presidio` finds nothing by itself; name `recognizers`, or the function of an `analyzer`")
        return self


class PresidioFinder:
    """Finds what the recognisers and the analyzer of the settings find."""

    def __init__(self, settings: PresidioSettings) -> None:
        """Load the library and make the recognisers.

        Raises:
            ModuleNotFoundError: The library is not installed; the message names the extra.
            ValueError: A recogniser or the function does not exist, or is none.
        """
        try:
            from presidio_analyzer import predefined_recognizers
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`presidio` needs the library `presidio-analyzer`, which is not installed; "
                "run `pip install cpex[presidio]`",
                name=error.name,
            ) from error
        self._settings = settings
        self._recognisers = [_recogniser(predefined_recognizers, name) for name in settings.recognizers]
        self._analyzer = _analyzer(settings.analyzer) if settings.analyzer else None
        self.types = frozenset(map(_type_of, self._names()))
        """Kinds that it may find, in lower case."""
        marks = "|".join(re.escape(type_.upper()) for type_ in sorted(self.types | set(PiiType)))
        self._own = re.compile(rf"\[(?:{marks})-(?:REDACTED(?:#[a-p]{{16}})?|TOKEN#[a-p]{{16}})\]")

    def _names(self) -> Iterator[str]:
        for recogniser in self._recognisers:
            yield from recogniser.supported_entities
        if self._analyzer is not None:
            yield from self._settings.entities or self._analyzer.get_supported_entities(self._settings.language)

    def find(self, text: str, taken: Collection[Finding]) -> list[Finding]:
        """What is in a text beside what was found already, in order and without overlap; the surest result wins."""
        spans = [(finding.start, finding.end) for finding in taken]
        # A model may take a label for a name.
        spans += [match.span() for match in self._own.finditer(text)]
        kept: list[Finding] = []
        for result in sorted(self._results(text), key=lambda result: (-result.score, result.start, -result.end)):
            if result.start < result.end and not any(result.start < end and start < result.end for start, end in spans):
                spans.append((result.start, result.end))
                kept.append(Finding(result.start, result.end, _type_of(result.entity_type)))
        return sorted(kept)

    def _results(self, text: str) -> Iterator[Any]:
        least = self._settings.min_score
        for recogniser in self._recognisers:
            found = recogniser.analyze(text, recogniser.supported_entities, None) or ()
            yield from (result for result in found if result.score >= least)
        if self._analyzer is not None:
            yield from self._analyzer.analyze(
                text=text, language=self._settings.language, entities=self._settings.entities, score_threshold=least
            )


def _type_of(entity: str) -> str:
    return _OURS.get(entity, entity.lower())


def _recogniser(module: Any, name: str) -> Any:
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        raise ValueError(f"presidio-analyzer has no recognizer `{name}`; known: its predefined_recognizers")
    try:
        return cls()
    except TypeError as error:
        raise ValueError(f"the recognizer `{name}` needs more than its name; build it in an `analyzer`") from error


def _analyzer(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no function `{path}` that builds an analyzer; check the dotted path") from error
    return make()
