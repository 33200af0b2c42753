"""Bytes as text and back, for whoever looks for something in them or takes something out.

What is no UTF-8 in a text, such as the accents of an older encoding, stands in it as lone surrogates, one for each byte
(PEP 383), so that everything comes back as it was.
"""

from __future__ import annotations

__all__ = ["bytes_of_text", "text_in_bytes"]

_AT_MOST = 8
"""One byte in so many may be no text; of random bytes every second one is none."""
# Without those that text holds: tab, line feed, form feed, carriage return, escape.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09, 0x0A, 0x0C, 0x0D, 0x1B})


def text_in_bytes(data: bytes | bytearray | memoryview) -> str | None:
    """The text that bytes are; `None` when they are none.

    SECURITY: UTF-8 with a few other bytes in between counts as text, or one stray byte would hide all the rest.
    """
    data = bytes(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        strange = len(data) - len(data.decode(errors="ignore").encode())
        strange += len(data) - len(data.translate(None, _CONTROLS))
        return data.decode(errors="surrogateescape") if strange * _AT_MOST <= len(data) else None


def bytes_of_text(text: str) -> bytes:
    """The bytes of such a text; a half of a surrogate pair that stands for no byte becomes `?`."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="replace")
