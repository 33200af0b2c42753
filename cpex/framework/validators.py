"""Checks of values that come from outside. So far: URLs that the framework is going to connect to."""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from urllib.parse import SplitResult, urlsplit

__all__ = ["SecurityValidator", "validate_plugin_url"]

MAX_URL_LENGTH = 2048
"""Characters."""
_SCHEMES = ("http://", "https://", "ws://", "wss://")
_FOREIGN_SCHEMES = ("javascript:", "data:", "vbscript:", "about:", "chrome:", "file:", "ftp:", "mailto:")
_BLOCKED_NETWORKS = tuple(
    ipaddress.IPv4Network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16")
)
_ANY_ADDRESS = ipaddress.IPv4Address(0)
_HTML_TAG = re.compile(
    r"</?(?:script|iframe|object|embed|link|meta|base|form|img|svg|video|audio|source|track|area|map|canvas|applet"
    r"|frameset|frame|html|head|body|style)\b",
    re.IGNORECASE,
)
# Protocols such as `javascript:` never get here: they are refused anywhere in the text, before it is taken apart.
_SCRIPT = re.compile(r"""(?:^|[\s"'`<>=])(?:on\w+\s*=|<script)""", re.IGNORECASE)


class SecurityValidator:
    """Refuses values that could be turned against the host."""

    @staticmethod
    def validate_url(value: str, field_name: str = "URL") -> str:
        """Check a URL and return it unchanged.

        Accepted are http, https, ws and wss URLs with a host name or an IPv4 address. Host names are not resolved, so a
        name that points into a private network passes; an address written in an older notation (`127.1`, `0x7f.1`,
        `2130706433`) is recognised for what it is.

        Args:
            field_name: How messages call the value.

        Raises:
            ValueError: The URL is refused; the text names the field and the first rule that it breaks.
        """
        fault = _text_fault(value) or _structure_fault(value) or _markup_fault(value)
        if fault:
            raise ValueError(f"{field_name} {fault}")
        return value


def validate_plugin_url(value: str, field_name: str = "URL") -> str:
    """Check a URL that a plugin is reached at: the rules of `SecurityValidator.validate_url`."""
    return SecurityValidator.validate_url(value, field_name)


def _text_fault(value: str) -> str | None:
    """What the text alone shows, before it is taken apart."""
    if not value or not isinstance(value, str):
        return "cannot be empty"
    if len(value) > MAX_URL_LENGTH:
        return f"is longer than {MAX_URL_LENGTH} characters"
    lower = value.lower()
    if not lower.startswith(_SCHEMES):
        return f"must start with one of: {', '.join(_SCHEMES)}"
    if any(scheme in lower for scheme in _FOREIGN_SCHEMES):
        return f"contains an unsupported protocol; none of {', '.join(_FOREIGN_SCHEMES)} may stand anywhere in it"
    if "[" in value or "]" in value:
        return "contains brackets, and IPv6 addresses are not supported; use a host name"
    if "\r" in value or "\n" in value:
        return "contains line breaks"
    if " " in value.partition("?")[0]:
        return "contains spaces before its query"
    return None


def _structure_fault(value: str) -> str | None:
    """What its parts show: host, credentials, port, address."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return f"contains an invalid port or host ({error})"
    if not parts.netloc or not parts.hostname:
        return "is not a valid URL: it names no host"
    if parts.username is not None or parts.password is not None:
        return "contains credentials; pass them by header or TLS certificate"
    if port == 0:
        return "contains an invalid port number; ports go from 1 to 65535"
    return _address_fault(parts)


def _address_fault(parts: SplitResult) -> str | None:
    address = _ipv4(parts.hostname or "")
    if address is None:
        return None
    if address == _ANY_ADDRESS:
        return f"contains an invalid IP address ({address}): nothing can be reached there"
    if _ssrf_protection_enabled() and any(address in network for network in _BLOCKED_NETWORKS):
        here = "write `localhost`, or " if address.is_loopback else ""
        return (
            f"contains an IP address blocked by SSRF protection ({address}); "
            f"for a server that is meant to be there {here}set PLUGINS_SSRF_PROTECTION_ENABLED=false"
        )
    return None


def _ipv4(host: str) -> ipaddress.IPv4Address | None:
    """The address that connecting to `host` would use, if it is one in any notation; no name is looked up."""
    # SECURITY: the connecting end reads `0x7f.1`, `2130706433`, a trailing dot and full-width digits as addresses, so
    # this must too.
    plain = unicodedata.normalize("NFKC", host).replace("\u3002", ".").rstrip(".")
    try:
        return ipaddress.IPv4Address(socket.inet_aton(plain))
    except (OSError, ValueError):
        return None


def _ssrf_protection_enabled() -> bool:
    from cpex.framework.settings import get_ssrf_settings

    return get_ssrf_settings().ssrf_protection_enabled


def _markup_fault(value: str) -> str | None:
    """What would be dangerous where the URL is shown."""
    if _HTML_TAG.search(value):
        return "contains HTML tags"
    if _SCRIPT.search(value):
        return "contains script patterns"
    return None
