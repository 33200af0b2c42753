"""Which addresses the framework connects to."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from cpex.framework.external.addresses import AddressRefused, checked_addresses, refusal_of


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("192.168.0.1", "private"),
        ("fd00::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("100.64.0.1", "reserved"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::", "loopback"),
        ("8.8.8.8", None),
        ("2606:4700:4700::1111", None),
    ],
)
@pytest.mark.conformance("E10")
def test_addresses_that_are_not_of_the_public_internet_are_told_apart(address: str, kind: str | None) -> None:
    assert refusal_of(ipaddress.ip_address(address)) == kind


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "::1"])
async def test_every_notation_of_a_private_address_is_refused(host: str) -> None:
    with pytest.raises((AddressRefused, socket.gaierror)):
        await checked_addresses(host, 80)


async def test_localhost_may_be_this_machine() -> None:
    assert set(await checked_addresses("localhost", 80)) <= {"127.0.0.1", "::1"}
    assert await checked_addresses("127.0.0.1", 80, public_only=False) == ["127.0.0.1"]
