"""Which targets gRPC connects to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cpex.framework.external.grpc.targets import judged
from cpex.framework.external.port import LinkError


@pytest.mark.conformance("E10.grpc")
@pytest.mark.parametrize(
    "target",
    [
        "10.1.2.3:50051",
        "169.254.169.254:80",
        "0x7f.1:50051",
        "2130706433:50051",
        "[fd00::1]:50051",
        "dns:192.168.0.1:50051",
        "dns:///192.168.0.1:50051",
        "dns://8.8.8.8/192.168.0.1:50051",
    ],
)
async def test_a_target_in_a_private_network_is_refused_in_every_notation(target: str) -> None:
    with pytest.raises(LinkError) as raised:
        await judged(target, 0, public_only=True)
    assert (raised.value.code, raised.value.sent) == ("connect", False)
    assert "PLUGINS_SSRF_PROTECTION_ENABLED=false" in str(raised.value) or "is the name right?" in str(raised.value)
    assert await judged(target, 0, public_only=False) == (target, [])


@pytest.mark.parametrize("target", ["localhost:50051", "127.0.0.1:50051", "[::1]:50051"])
async def test_this_machine_may_be_meant(target: str) -> None:
    try:
        assert await judged(target, 0, public_only=True) == (target, [])
    except LinkError as error:
        # A machine without IPv6 does not know its address.
        assert "is the name right?" in str(error) and target.startswith("[")  # noqa: PT017,PT018


@pytest.mark.parametrize("target", ["ipv4:10.0.0.1:1", "xds:///plugins", "vsock:2:3", "host:port", ":1", "a:1:2"])
async def test_what_cannot_be_judged_is_refused(target: str) -> None:
    with pytest.raises(LinkError, match="can only judge `host:port`"):
        await judged(target, 0, public_only=True)


async def test_a_name_that_nobody_knows_is_named() -> None:
    with pytest.raises(LinkError, match=r"cannot connect to nowhere\.invalid:1: .*; is the name right\?"):
        await judged("nowhere.invalid:1", 0, public_only=True)


async def test_a_socket_is_no_matter_of_addresses(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    target = f"unix://{tmp_path}/s"
    assert await judged(target, 0, public_only=True) == (target, [])
    tmp_path.chmod(0o777)
    with pytest.raises(LinkError, match="every user of this machine may write to"):
        await judged(target, 0, public_only=True)


@pytest.mark.conformance("E10.grpc")
async def test_the_channel_goes_to_what_was_judged_under_the_name_it_was_found_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A name of the public internet, without the internet.
    async def looked_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        addresses = ["2606:4700::1", "8.8.8.8", "8.8.4.4"]
        return [(0, 0, 0, "", (each, 50051)) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", looked_up)
    options = [
        ("grpc.default_authority", "plugins.example:50051"),
        ("grpc.ssl_target_name_override", "plugins.example"),
    ]
    found = [await judged("plugins.example:50051", turn, public_only=True) for turn in range(3)]
    assert found == [
        ("ipv6:[2606:4700::1]:50051", options),
        ("ipv4:8.8.8.8:50051,8.8.4.4:50051", options),
        ("ipv6:[2606:4700::1]:50051", options),
    ]
