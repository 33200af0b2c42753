"""How many tokens a value costs: an estimate that needs no vocabulary, or any tokenizer named in the configuration."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sized
from typing import Any

from pydantic_core import to_json

__all__ = ["estimate_tokens", "load_tokenizer", "rendered"]

_BYTES_PER_TOKEN = 4


def rendered(value: Any) -> str:
    """A value as the text that a model reads: a string as it is, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    # What has no JSON form counts as its text; `inf` and lone surrogates do not stop the count.
    try:
        return to_json(
            value, fallback=str, serialize_unknown=True, inf_nan_mode="constants", bytes_mode="base64"
        ).decode()
    except ValueError:
        return str(value)


def estimate_tokens(text: str) -> int:
    """A quarter of the UTF-8 bytes, rounded up; at least 1.

    That is the usual rule of thumb for English; it counts other scripts higher, as byte-pair vocabularies do. For exact
    figures name the model's own tokenizer.
    """
    # Lone surrogates cannot be encoded strictly; they count as the three bytes they would take.
    return max(1, -(-len(text.encode(errors="surrogatepass")) // _BYTES_PER_TOKEN))


def load_tokenizer(path: str) -> Callable[[str], int]:
    """The tokenizer at `package.module:attribute` or `package.module.attribute`.

    That is a callable from text to a number, or to a collection of tokens. The function made of it raises `ValueError`
    when it gives less than nothing: a budget must not grow by being spent.

    Raises:
        ValueError: There is no such module or attribute, or it cannot be called.
    """
    try:
        found: Any = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"tokenizer `{path}` cannot be loaded ({error}); write it as `package.module:callable`"
        ) from error
    if not callable(found):
        raise ValueError(
            f"tokenizer `{path}` is not callable; name a function from text to a number or a list of tokens"
        )

    def count(text: str) -> int:
        tokens = found(text)
        number = len(tokens) if isinstance(tokens, Sized) else int(tokens)
        if number < 0:
            raise ValueError(f"tokenizer `{path}` counted {number} tokens; it must give zero or more")
        return number

    return count
