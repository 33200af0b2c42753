"""Which network addresses the framework may be told to connect to.

A URL in a configuration may name any host, and a name may point anywhere: into the host's own network, at a metadata
service of a cloud, back at this machine. So a name is looked up here, every address it has is judged, and the
connection goes to an address that was judged, not to a second look-up's.

Source: docs/reference/external.md, "Addresses".
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import TypeAlias

from cpex.framework.external.port import LinkError
from cpex.framework.models.sockets import check_socket, is_shared

__all__ = ["THIS_MACHINE", "AddressRefused", "check_literal", "check_uds", "checked_addresses", "refusal_of"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCAL_NAME = "localhost"
"""The one name that may stand for this machine: nobody can point it elsewhere by a record of theirs."""
THIS_MACHINE = frozenset({LOCAL_NAME, "127.0.0.1", "::1"})
"""The same, and the addresses that say openly that they do."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SWITCH = "PLUGINS_SSRF_PROTECTION_ENABLED"


class AddressRefused(OSError):
    """A name leads to an address that the framework does not connect to."""


def refusal_of(address: Address) -> str | None:
    """What kind of address it is when it is none of the public internet's; `None` for one that is."""
    address = _embedded(address)
    kinds = ("loopback", "link_local", "multicast", "unspecified", "private")
    for kind in kinds:
        if getattr(address, f"is_{kind}"):
            return kind.replace("_", "-")
    return None if address.is_global else "reserved"


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps: a translator on the way would unwrap it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def check_uds(path: str) -> None:
    """Refuse a Unix socket that somebody else may have put there.

    Raises:
        LinkError: It is refused; or it is not there, in a folder where somebody else could make it now.
    """
    try:
        check_socket(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        if isinstance(error, PermissionError) or (missing and Path(path).parent.is_dir() and is_shared(path)):
            text = f"cannot connect to {path}: {error.strerror or error}; is the plugin server running?"
            raise LinkError(text, code="connect", sent=False) from error
        # Whatever else is wrong with it, connecting tells better.


async def checked_addresses(
    host: str, port: int, *, public_only: bool = True, local: frozenset[str] = frozenset({LOCAL_NAME})
) -> list[str]:
    """Look a host up.

    Args:
        host: A name or an address in any notation.
        public_only: Refuse a host any of whose addresses is not of the public internet.
        local: Hosts that may be this machine all the same.

    Returns:
        Its addresses, in the order to try them; at least one.

    Raises:
        AddressRefused: One of them is not to be connected to.
        OSError: The host is not known.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if public_only:
        # SECURITY: one bad address is enough: whoever controls the name chooses which one is used.
        for each in addresses:
            _check(host, ipaddress.ip_address(each.partition("%")[0]), local)
    return addresses


def check_literal(host: str) -> None:
    """Judge a host that is written as an address, in any notation; a name is judged when it is connected to.

    Raises:
        AddressRefused: It is not to be connected to.
    """
    try:
        # Nothing is looked up, so this blocks for nobody.
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return
    for each in found:
        _check(host, ipaddress.ip_address(str(each[4][0]).partition("%")[0]), frozenset())


def _check(host: str, address: Address, local: frozenset[str]) -> None:
    kind = refusal_of(address)
    if kind is None or (kind == "loopback" and host.rstrip(".").lower() in local):
        return
    here = "write `localhost`, or " if kind == "loopback" else ""
    raise AddressRefused(
        f"`{host}` leads to {address}, a {kind} address, which is blocked by SSRF protection; "
        f"for a server that is meant to be there {here}set {SWITCH}=false"
    )
