"""Placeholders in endpoints: filled with one path segment each, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pdp_servers import Engine, PdpServer, opa

from cpex.framework.pdp import OpaResolver, PdpError

Serve = Callable[[Engine], PdpServer]


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ("search", "/v1/data/tools/search/allow?who=ann"),
        ("a b", "/v1/data/tools/a%20b/allow?who=ann"),
        ("../../v1/policies", "/v1/data/tools/..%2F..%2Fv1%2Fpolicies/allow?who=ann"),
        ("x?y=1#z", "/v1/data/tools/x%3Fy%3D1%23z/allow?who=ann"),
        ("é{who}", "/v1/data/tools/%C3%A9%7Bwho%7D/allow?who=ann"),
        ("a\r\nHost: evil", "/v1/data/tools/a%0D%0AHost%3A%20evil/allow?who=ann"),
    ],
)
@pytest.mark.conformance("P3")
async def test_a_value_is_one_segment_whatever_is_in_it(serve: Serve, tool: str, path: str) -> None:
    server = serve(opa({f"tools/{tool}/allow?who=ann": lambda _: True}))
    resolver = OpaResolver(server.url + "/v1/data/tools/{tool}/allow?who={who}", timeout_ms=60_000)
    await resolver.resolve({"tool": tool, "who": "ann"})
    await resolver.close()
    assert [asked.path for asked in server.asked] == [path]


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "the endpoint needs `tool`, and the question has no text under that key"),
        ({"tool": {"id": "x"}}, "the endpoint needs `tool`, and the question has no text under that key"),
        ({"tool": ".."}, "the endpoint needs `tool`, and '..' cannot be a part of a path"),
        ({"tool": ""}, "the endpoint needs `tool`, and '' cannot be a part of a path"),
    ],
)
@pytest.mark.conformance("P2")
async def test_what_cannot_fill_a_placeholder_is_not_asked(serve: Serve, facts: dict[str, Any], text: str) -> None:
    server = serve(opa({}))
    resolver = OpaResolver(server.url + "/v1/data/{tool}")
    with pytest.raises(PdpError) as caught:
        await resolver.resolve(facts)
    assert str(caught.value) == f"OPA bad input: {text} ({server.url}/v1/data/{{tool}})"
    assert server.asked == []


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("http://h/{0}", "a placeholder is a key in braces"),
        ("http://h/{}", "a placeholder is a key in braces"),
        ("http://h/{tool.__class__}", "a placeholder is a key in braces"),
        ("http://h/{tool!r}", "a placeholder is a key in braces"),
        ("http://h/{tool:>9}", "a placeholder is a key in braces"),
        ("http://h/{tool", "has a broken placeholder"),
        ("http://{tenant}.pdp/x", "placeholders may stand in the path and the query only"),
        ("http://127.0.0.1:8181/x", "blocked by SSRF protection"),
        ("ftp://h/x", "endpoint must start with one of"),
        ("http://user:word@h/x", "contains credentials"),
        ("", "endpoint cannot be empty"),
    ],
)
@pytest.mark.conformance("P1", "P2")
def test_an_endpoint_that_cannot_be_meant_is_refused_at_construction(endpoint: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        OpaResolver(endpoint)


@pytest.mark.parametrize("limits", [{"timeout_ms": 0}, {"connect_timeout_ms": 0}, {"retries": -1}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        OpaResolver("http://h/x", **limits)
