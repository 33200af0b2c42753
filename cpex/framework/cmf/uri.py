"""Patterns over addresses.

`*` stands for any run of characters within one segment, `**` for any run at all; both also for none. Everything else
stands for itself, and the pattern must cover the whole address. So `file:///**/c.txt` needs two slashes before `c.txt`,
and does not match `file:///c.txt`.

An address of a resource can be spelled in many ways. `normal_uri` brings it into one form before it is compared, so
that a policy cannot be dodged, or satisfied, by a spelling.

Source: RFC 3986, section 6.2, "Comparison Ladder"; RFC 8089, section 2, for `file`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

__all__ = ["UriPattern", "normal_uri", "resource_pattern", "verbatim_pattern"]

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PIECE = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]")
_PARTS = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):)?(?://(?P<host>[^/?#]*))?(?P<path>[^?#]*)(?P<rest>.*)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_WILDCARDS = re.compile(r"\*+")
_HOSTED = frozenset({"http", "https", "ws", "wss", "ftp", "file"})
"""Schemes whose authority names a host, in which case does not count. Elsewhere it may be anybody's identifier."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443", "ftp": ":21"}


def normal_uri(uri: str) -> str:
    """The one spelling of an address that patterns are compared with.

    Scheme and host are lower case, a default port is gone. Percent-encoded letters, digits and slashes are decoded;
    characters that an address may not hold as they are (blanks, line ends, anything beyond ASCII) are percent-encoded.
    `.` and `..` are resolved. `file:/x`, `file://localhost/x` and `file:////x` are `file:///x`.
    """
    return _normal(uri, _without_dots)


def _normal(text: str, without_dots: Callable[[str], str]) -> str:
    found = _PARTS.fullmatch(_respelled(text))
    assert found is not None  # every part may be empty, and respelling leaves no line ends
    scheme, host, path, rest = found["scheme"], found["host"], found["path"], found["rest"]
    scheme = scheme.lower() if scheme is not None else None
    if host is not None and scheme in _HOSTED:
        host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":")).removesuffix(":")
    if scheme == "file" and (host is not None or path.startswith("/")):
        host = "" if host in (None, "localhost") else host
        path = re.sub(r"/+", "/", path)
    path = without_dots(path)
    if host is None:
        path = _still_a_path(path, scheme)
    return f"{scheme + ':' if scheme is not None else ''}{'//' + host if host is not None else ''}{path}{rest}"


def _still_a_path(path: str, scheme: str | None) -> str:
    """Mark a path that would read as a host or a scheme, now that its dots are gone; RFC 3986, sections 4.2 and 5.3."""
    if path.startswith("//"):
        return f"/.{path}"
    return f"./{path}" if scheme is None and _SCHEME.match(path) else path


def _respelled(text: str) -> str:
    """Decode what needs no percent-encoding and encode what does, character by character."""
    return _PIECE.sub(_respell, text)


def _respell(match: re.Match[str]) -> str:
    piece = match[0]
    if len(piece) == 3:
        char = chr(int(piece[1:], 16))
        # SECURITY: servers take `%2F` for a slash, so `a/%2e%2e%2fb` must not pass as one segment below `a`.
        return char if char in _UNRESERVED or char == "/" else piece.upper()
    return "".join(f"%{byte:02X}" for byte in piece.encode("utf-8", errors="surrogatepass"))


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4, for whole paths."""
    if "." not in path:
        return path
    segments = path.split("/")
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            # The empty segment before a leading slash stays.
            if len(kept) > (1 if path.startswith("/") else 0):
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)


class UriPattern:
    """A compiled pattern. Its time grows with pattern and address, whatever they hold: nothing backtracks."""

    __slots__ = ("_any", "_length", "_literals", "_prefix", "_within")

    def __init__(self, pattern: str) -> None:
        wildcards = list(_WILDCARDS.finditer(pattern))
        self._prefix = pattern[: wildcards[0].start()] if wildcards else pattern
        # State n: the first n tokens behind the prefix are done. Bit n of each mask is about the token that comes next.
        self._literals: dict[str, int] = {}
        self._within = self._any = self._length = 0
        at = len(self._prefix)
        for wildcard in wildcards:
            self._add_literal(pattern[at : wildcard.start()])
            if len(wildcard[0]) == 1:
                self._within |= 1 << self._length
            else:
                self._any |= 1 << self._length
            self._length += 1
            at = wildcard.end()
        self._add_literal(pattern[at:])

    def _add_literal(self, text: str) -> None:
        for char in text:
            self._literals[char] = self._literals.get(char, 0) | 1 << self._length
            self._length += 1

    def matches(self, text: str) -> bool:
        """Whether the pattern covers the whole text."""
        if not text.startswith(self._prefix):
            return False
        if self._length == 0:
            return len(text) == len(self._prefix)
        literals, within, whole = self._literals, self._within, self._any
        wildcards = within | whole
        # A wildcard may stand for nothing, so its state implies the next one. No two wildcards are adjacent.
        states = 1 | (1 & wildcards) << 1
        for char in text[len(self._prefix) :]:
            stay = states & (whole if char == "/" else wildcards)
            states = stay | (states & literals.get(char, 0)) << 1
            states |= (states & wildcards) << 1
            if not states:
                return False
        return bool(states >> self._length & 1)


@lru_cache(maxsize=512)
def verbatim_pattern(pattern: str) -> UriPattern:
    """The pattern as it is written, for addresses that have one spelling."""
    return UriPattern(pattern)


@lru_cache(maxsize=512)
def resource_pattern(pattern: str) -> UriPattern:
    """The pattern in the spelling of `normal_uri`, for addresses of resources."""
    return UriPattern(_normal(pattern, _without_dots_before_wildcards))


def _without_dots_before_wildcards(path: str) -> str:
    """What `..` behind a wildcard would take away cannot be known, so it stays, and matches nothing."""
    if "*" not in path:
        return _without_dots(path)
    at = path.rfind("/", 0, path.index("*")) + 1
    return _without_dots(path[:at]) + path[at:]
