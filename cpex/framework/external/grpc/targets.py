"""Which targets a channel is made to: the rules of `addresses.py`, in the words of gRPC.

gRPC looks names up itself, again and again. So a name is looked up and judged here, and the channel is made to the
addresses that were judged, under the name that they were found by: the server's certificate must bear it.

Source: docs/reference/external.md, "Addresses".
"""

from __future__ import annotations

import re
from typing import Any

from cpex.framework.external.addresses import SWITCH, THIS_MACHINE, AddressRefused, check_uds, checked_addresses
from cpex.framework.external.port import LinkError

__all__ = ["judged"]

_HOST_AND_PORT = re.compile(r"(?:dns:(?://[^/]*/)?)?(?:\[([^\]]+)\]|([^:/\[\],]+)):(\d+)")


async def judged(target: str, turn: int, *, public_only: bool) -> tuple[str, list[tuple[str, Any]]]:
    """Where to connect to for a configured target, and the channel's options for it.

    Args:
        turn: How often the target has been connected to before. A channel takes addresses of one family, so that those
            of a host that has both take turns.
        public_only: Refuse addresses that are not of the public internet, other than those of this machine.

    Raises:
        LinkError: The target leads where nothing may be connected to, or is not known.
    """
    if target.startswith("unix:/"):
        check_uds(re.sub(r"^unix:(//)?", "", target))
    if target.startswith("unix:") or not public_only:
        return target, []
    parts = _HOST_AND_PORT.fullmatch(target)
    if parts is None:
        raise _refused(target, f"SSRF protection can only judge `host:port`; write that, or set {SWITCH}=false")
    host, port = parts[1] or parts[2], int(parts[3])
    try:
        addresses = await checked_addresses(host, port, local=THIS_MACHINE)
    except AddressRefused as error:
        raise _refused(target, str(error)) from error
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(target, f"{reason}; is the name right?") from error
    if host in THIS_MACHINE:
        return target, []
    return _pinned(host, port, addresses, turn)


def _pinned(host: str, port: int, addresses: list[str], turn: int) -> tuple[str, list[tuple[str, Any]]]:
    families = {"ipv6" if ":" in each else "ipv4": "" for each in addresses}
    family = list(families)[turn % len(families)]
    own = [each for each in addresses if (":" in each) is (family == "ipv6")]
    listed = ",".join(f"[{each}]:{port}" if family == "ipv6" else f"{each}:{port}" for each in own)
    name = f"[{host}]" if ":" in host else host
    options = [("grpc.default_authority", f"{name}:{port}"), ("grpc.ssl_target_name_override", host)]
    return f"{family}:{listed}", options


def _refused(target: str, reason: str) -> LinkError:
    return LinkError(f"cannot connect to {target}: {reason}", code="connect", sent=False)
