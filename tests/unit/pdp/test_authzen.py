"""AuthZEN access evaluation: what is asked, and which answers allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pdp_servers import Engine, PdpServer, authzen

from cpex.framework.pdp import AuthZenResolver, PdpError, PdpResult

Serve = Callable[[Engine], PdpServer]


def resolver_of(server: PdpServer, **options: Any) -> AuthZenResolver:
    return AuthZenResolver(f"{server.url}/access/v1/evaluation", timeout_ms=60_000, **options)


async def ask(serve: Serve, response: Any, question: dict[str, Any] | None = None, **options: Any) -> PdpResult:
    resolver = resolver_of(serve(authzen(lambda _: response)), **options)
    try:
        return await resolver.resolve(question or {})
    finally:
        await resolver.close()


UNKNOWN = {
    "subject": {"type": "unknown", "id": "unknown"},
    "action": {"name": "unknown"},
    "resource": {"type": "tool", "id": "unknown"},
}


CONTEXT = {"delegation": {"depth": 1}, "session": {"id": "s"}, "authorization_details": [], "args": {"q": 1}, "ip": "x"}


@pytest.mark.parametrize(
    ("facts", "request_body"),
    [
        ({}, UNKNOWN),
        ({"subject": None, "action": None, "tool": None}, UNKNOWN),
        (
            {"subject": {"type": "user", "id": "ann", "roles": ["dev"]}, "action": "tools/call", "tool": "search"},
            {
                "subject": {"type": "user", "id": "ann", "properties": {"roles": ["dev"]}},
                "action": {"name": "tools/call"},
                "resource": {"type": "tool", "id": "search"},
            },
        ),
        (
            {"subject": "ann", "action": {"name": "read", "properties": {"x": 1}}, "tool": {"type": "doc", "id": "7"}},
            {
                "subject": {"type": "unknown", "id": "ann"},
                "action": {"name": "read", "properties": {"x": 1}},
                "resource": {"type": "doc", "id": "7"},
            },
        ),
        (
            {
                "delegation": {"depth": 1},
                "session": {"id": "s"},
                "authorization_details": [],
                "args": {"q": 1},
                "ip": "x",
            },
            {
                **UNKNOWN,
                "context": {
                    "delegation": {"depth": 1},
                    "session": {"id": "s"},
                    "authorization_details": [],
                    "args": {"q": 1},
                    "ip": "x",
                },
            },
        ),
    ],
)
async def test_facts_become_an_access_evaluation_request(
    serve: Serve, facts: dict[str, Any], request_body: dict[str, Any]
) -> None:
    server = serve(authzen(lambda request: request == request_body))
    resolver = resolver_of(server)
    assert (await resolver.resolve(facts)).allowed
    await resolver.close()
    assert server.asked[0].body == request_body


@pytest.mark.parametrize(
    ("response", "allowed", "reason"),
    [
        ({"decision": True}, True, None),
        ({"decision": False}, False, None),
        ({}, False, None),
        ({"decision": False, "context": {"reason": "closed"}}, False, "closed"),
        ({"decision": False, "context": {"reason": {"message": "closed", "detail": "d"}}}, False, "closed"),
        ({"decision": False, "context": {"reason": {"detail": "d"}}}, False, "d"),
        ({"decision": False, "context": {"reason": 7}}, False, None),
        ({"decision": True, "context": "no object"}, True, None),
    ],
)
async def test_the_decision_decides_and_the_context_says_why(
    serve: Serve, response: dict[str, Any], allowed: bool, reason: str | None
) -> None:
    result = await ask(serve, response)
    context = response.get("context")
    assert (result.allowed, result.reason) == (allowed, reason)
    assert result.context == (context if isinstance(context, dict) else {})


@pytest.mark.parametrize("decision", ["false", "true", 1, 0, None, [], {"allow": True}])
@pytest.mark.conformance("P5")
async def test_a_decision_that_is_no_boolean_is_none(serve: Serve, decision: Any) -> None:
    name = type(decision).__name__
    with pytest.raises(PdpError, match=rf"^AuthZen bad response: `decision` must be true or false, not {name} \(http:"):
        await ask(serve, {"decision": decision})


async def test_who_fails_open_lets_pass_what_has_no_decision(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    result = await ask(serve, {"decision": "false"}, fail_open=True)
    assert (result.allowed, result.reason) == (True, "AuthZen bad response, fail-open")
    assert "gave no decision" in caplog.text


async def test_a_subject_that_is_neither_object_nor_text_cannot_be_asked_about(serve: Serve) -> None:
    with pytest.raises(PdpError, match=r"^AuthZen bad input: `subject` must be an object or a text, not int \("):
        await ask(serve, True, {"subject": 7})


async def test_many_questions_go_out_as_one_request(serve: Serve) -> None:
    server = serve(authzen(lambda request: request["resource"]["id"] == "search"))
    resolver = resolver_of(server, evaluations_endpoint=f"{server.url}/access/v1/evaluations")
    results = await resolver.resolve_many([{"tool": "search"}, {"tool": "shell"}])
    assert await resolver.resolve_many([]) == []
    await resolver.close()
    assert [result.allowed for result in results] == [True, False]
    assert [asked.path for asked in server.asked] == ["/access/v1/evaluations"]


async def test_without_such_an_endpoint_they_are_asked_one_by_one(serve: Serve) -> None:
    server = serve(authzen(lambda request: request["resource"]["id"] == "search"))
    resolver = resolver_of(server)
    results = await resolver.resolve_many([{"tool": "search"}, {"tool": "shell"}])
    await resolver.close()
    assert [result.allowed for result in results] == [True, False]
    assert [asked.path for asked in server.asked] == ["/access/v1/evaluation"] * 2


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([{"decision": True}], "1 decisions for 2 questions"),
        ([{"decision": True}, {"decision": "true"}], "`decision` must be true or false, not str"),
        ([True, True], "`evaluations` is not a list of objects"),
        ("yes", "`evaluations` is not a list of objects"),
    ],
)
async def test_an_answer_that_does_not_fit_the_questions_decides_none_of_them(
    serve: Serve, answers: Any, text: str
) -> None:
    from pdp_servers import as_json

    server = serve(lambda path, body: as_json({"evaluations": answers}))
    options: dict[str, Any] = {"evaluations_endpoint": f"{server.url}/access/v1/evaluations"}
    resolver = resolver_of(server, **options)
    with pytest.raises(PdpError, match=f"AuthZen bad response: {text}"):
        await resolver.resolve_many([{}, {}])
    await resolver.close()
    resolver = resolver_of(server, fail_open=True, **options)
    assert [result.reason for result in await resolver.resolve_many([{}, {}])] == [
        "AuthZen bad response, fail-open"
    ] * 2
    await resolver.close()
