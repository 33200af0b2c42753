"""The two sides: our recognisers, and those of `presidio-analyzer`, one by one; and the text made for judging it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.pii.corpus import PHONE_REGIONS, Label, Sample
from benchmarks.pii.score import Find
from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.recognisers import Recognisers

__all__ = ["Search", "our_search", "ours", "presidio", "presidio_search", "presidio_sentences"]

Search = Callable[[str], Sequence[Any]]
"""From a text to what one side returns for it; what is timed."""

_ENTITIES = {
    "card": ("CREDIT_CARD", "CreditCardRecognizer"),
    "email": ("EMAIL_ADDRESS", "EmailRecognizer"),
    "phone": ("PHONE_NUMBER", "PhoneRecognizer"),
    "ssn": ("US_SSN", "UsSsnRecognizer"),
    "iban": ("IBAN_CODE", "IbanRecognizer"),
    "ip": ("IP_ADDRESS", "IpRecognizer"),
}


def ours(*types: str) -> Find:
    """Our recognisers for some types, in one run as the plugin uses them."""
    find = our_search(*types)
    return lambda text: [(finding.start, finding.end) for finding in find(text)]


def our_search(*types: str, regions: Sequence[str] = PHONE_REGIONS) -> Search:
    """The same, with what it returns left as it is."""
    return Recognisers([PiiType(type_) for type_ in types], regions).find


def presidio(type_: str) -> Find:
    """Their recogniser for one type with its own settings; every result counts, however low its score."""
    find = presidio_search(type_)
    return lambda text: [(found.start, found.end) for found in find(text)]


def presidio_search(type_: str) -> Search:
    """The same, with what it returns left as it is."""
    from presidio_analyzer import predefined_recognizers

    # It warns about addresses of which its list of domains knows nothing, and so on, for each of them.
    logging.disable(logging.WARNING)
    entity, name = _ENTITIES[type_]
    recogniser: Any = getattr(predefined_recognizers, name)()
    return lambda text: recogniser.analyze(text, [entity], None)


def presidio_sentences(seed: int, count: int) -> list[Sample]:
    """Sentences from the templates of `presidio-evaluator`, with its own invented values and labels."""
    types = {entity: type_ for type_, (entity, _) in _ENTITIES.items()}
    # It tells on standard output which defaults it takes, and draws a progress bar.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        from presidio_evaluator.data_generator import PresidioSentenceFaker

        faker: Any = PresidioSentenceFaker(locale="en_US", lower_case_ratio=0.05, random_seed=seed)
        sentences: Any = faker.generate_new_fake_sentences(count)
    return [
        Sample(
            sentence.full_text,
            tuple(
                Label(span.start_position, span.end_position, types[span.entity_type])
                for span in sentence.spans
                if span.entity_type in types
            ),
        )
        for sentence in sentences
    ]
