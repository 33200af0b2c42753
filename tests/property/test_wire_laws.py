"""Decoding undoes encoding, for every value that can be sent at all."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import UTC, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from cpex.framework.external.restoring import restored
from cpex.framework.external.wire import TAG, WireError, dumps, encode, loads

TEXTS = st.text(max_size=8) | st.just(TAG)
KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXTS
    | st.binary(max_size=8)
    | st.dates()
    # Which of two equal clock times is meant, when clocks are put back, is not sent: no JSON of dates says it either.
    | st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda moment: moment.replace(fold=0))
    | st.times().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas(min_value=timedelta(days=-9), max_value=timedelta(days=9))
    | st.decimals(allow_nan=False)
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
SECRETS = TEXTS.map(SecretStr) | st.binary(max_size=8).map(SecretBytes)
VALUES = st.recursive(
    KEYS | SECRETS | st.binary(max_size=4).map(bytearray),
    lambda inner: st.lists(inner, max_size=4) | st.sets(KEYS, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def typed(value: Any) -> Any:
    """A value with its types spelt out: `1`, `1.0` and `True` differ here."""
    if isinstance(value, dict):
        return "dict", sorted(((typed(key), typed(item)) for key, item in value.items()), key=repr)
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(map(typed, value), key=repr)
    if isinstance(value, list | tuple):
        return type(value).__name__, [typed(item) for item in value]
    return type(value).__name__, repr(value) if not isinstance(value, SecretStr | SecretBytes) else value


@given(VALUES)
def test_decoding_undoes_encoding_types_included(value: Any) -> None:
    assert typed(loads(dumps(value, reveal=True))) == typed(value)


@given(VALUES)
def test_what_is_sent_is_plain_json(value: Any) -> None:
    assert json.loads(json.dumps(encode(value), allow_nan=False)) == encode(value)


@given(st.floats())
def test_every_float_arrives(value: float) -> None:
    arrived = loads(dumps([value]))[0]
    assert arrived == value or (math.isnan(arrived) and math.isnan(value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.sampled_from(sorted("v")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.just("v"), inner, max_size=4),
    max_leaves=15,
)


@given(JSON | st.fixed_dictionaries({TAG: JSON, "v": JSON}))
def test_no_document_makes_decoding_fail_with_anything_but_its_own_error(document: Any) -> None:
    with contextlib.suppress(WireError):
        loads(json.dumps(document))


@given(st.binary(max_size=60))
def test_no_bytes_make_decoding_fail_with_anything_but_its_own_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        loads(data)


@given(VALUES)
def test_an_answer_that_repeats_what_was_sent_gives_the_original_back(value: Any) -> None:
    original = {"args": value}
    sent = loads(dumps(original))
    assert typed(restored(original, sent, loads(dumps(original)))) == typed(original)


@given(JSON, JSON)
def test_what_differs_from_what_was_sent_is_the_answer(sent: Any, received: Any) -> None:
    assert typed(restored(sent, sent, received)) == typed(received) or restored(sent, sent, received) == received
