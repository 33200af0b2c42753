"""Which addresses a pattern covers, however they are spelled."""

import pytest

from cpex.framework.cmf.message import (
    Message,
    PromptRequest,
    PromptRequestContentPart,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.uri import UriPattern, normal_uri
from cpex.framework.cmf.view import MessageView, iter_views


def tool(namespace: str | None, name: str) -> MessageView:
    part = ToolCallContentPart(content=ToolCall(tool_call_id="1", name=name, namespace=namespace))
    return next(iter_views(Message(role=Role.ASSISTANT, content=[part])))


def resource(uri: str) -> MessageView:
    reference = ResourceReference(resource_request_id="1", uri=uri, resource_type=ResourceType.FILE)
    return next(iter_views(Message(role=Role.USER, content=[ResourceRefContentPart(content=reference)])))


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("abc", ["abc"], ["", "ab", "abcd", "abc\n", "ABC"]),
        ("", [""], ["a"]),
        ("a*", ["a", "ab", "a\n"], ["", "a/", "ba"]),
        ("*", ["", "abc"], ["/", "a/b"]),
        ("**", ["", "abc", "a/b\nc/"], []),
        ("***", ["", "a/b"], []),
        ("a/*/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c"]),
        ("a/**/c", ["a/b/c", "a/b/b/c", "a//c"], ["a/c", "a/b/c/d"]),
        ("a*b*c", ["abc", "aXbYc", "abbcc"], ["ab/c", "a/bc", "acb"]),
        ("*x**y", ["xy", "axb/cy", "xxyy"], ["a/xy", "xyz"]),
        ("a?[b].+(", ["a?[b].+("], ["ab", "aX[b].+("]),
        ("é/*", ["é/日"], ["e/x"]),
    ],
)
def test_a_star_stays_within_a_segment_and_two_go_anywhere(
    pattern: str, covered: list[str], not_covered: list[str]
) -> None:
    compiled = UriPattern(pattern)
    assert [text for text in covered + not_covered if compiled.matches(text)] == covered


def test_many_wildcards_take_no_more_time_than_few() -> None:
    # Backtracking would take longer than the universe has.
    assert not UriPattern("*a**" * 50 + "b").matches("a" * 20_000)
    assert UriPattern("**a" * 50).matches("a" * 20_000)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("tool://hr-server/*", True),
        ("tool://hr-server/get_*", True),
        ("tool://hr-server/set_*", False),
        ("tool://other/*", False),
        ("tool://**", True),
        ("TOOL://**", False),
        ("tool://hr-server/get_compensation", True),
        ("tool://HR-server/**", False),
        ("", False),
    ],
)
def test_tools_are_matched_as_they_are_written(pattern: str, matches: bool) -> None:
    assert tool("hr-server", "get_compensation").matches_uri_pattern(pattern) is matches


def test_parts_without_an_address_match_nothing() -> None:
    text = next(iter_views(Message(role=Role.USER, content=[TextContent(text="a")])))
    for view in (text, resource("")):
        for pattern in ("*", "**", ""):
            assert not view.matches_uri_pattern(pattern)


@pytest.mark.conformance("M6")
def test_one_tool_cannot_pass_for_another() -> None:
    assert tool("a", "b/c").uri == tool("a/b", "c").uri == "tool://a/b/c"
    assert tool("a", "b/c").matches_uri_pattern("tool://a/b/c")
    assert not tool("a/b", "c").matches_uri_pattern("tool://a/**")
    assert tool("a/b", "c").matches_uri_pattern("tool://a%2Fb/c")
    assert tool("a%2Fb", "c").canonical_uri == "tool://a%252Fb/c"

    assert tool(None, "n").uri == tool("", "n").uri == tool("_", "n").uri == "tool://_/n"
    assert tool(None, "n").matches_uri_pattern("tool://_/*")
    assert not tool("_", "n").matches_uri_pattern("tool://_/*")

    name = "x\n"
    assert not tool("a", name).matches_uri_pattern("tool://a/x")
    assert tool("a", name).matches_uri_pattern("tool://**")


def test_prompts_and_results_have_addresses_too() -> None:
    request = PromptRequest(prompt_request_id="1", name="greet", server_id="s/t")
    result = ToolResult(tool_call_id="1", tool_name="get")
    content = [PromptRequestContentPart(content=request), ToolResultContentPart(content=result)]
    prompt, answer = iter_views(Message(role=Role.TOOL, content=content))
    assert prompt.uri == "prompt://s/t/greet"
    assert prompt.matches_uri_pattern("prompt://s%2Ft/greet")
    assert not prompt.matches_uri_pattern("prompt://s/**")
    assert answer.matches_uri_pattern("tool_result://*")


@pytest.mark.conformance("M5")
@pytest.mark.parametrize(
    ("pattern", "uri", "matches"),
    [
        ("file:///a/*", "file:///a/b", True),
        ("file:///a/*", "file:///a/b/c", False),
        ("file:///**/c.txt", "file:///a/b/c.txt", True),
        ("file:///**/c.txt", "file:///c.txt", False),
        # Spellings of one place.
        ("file:///etc/*", "FILE:///etc/passwd", True),
        ("file:///etc/*", "file:/etc/passwd", True),
        ("file:/etc/*", "file:///etc/passwd", True),
        ("file:///etc/*", "file://localhost/etc//passwd", True),
        ("file:///etc/*", "file:///%65tc/pass%77d", True),
        ("file:///etc/*", "file:///tmp/../etc/./passwd", True),
        ("file:///etc/*", "file:///tmp/%2e%2E%2fetc/passwd", True),
        ("file:///etc/*", "file:///../etc/passwd", True),
        ("file:///etc/./x/../*", "file:///etc/passwd", True),
        ("file:///etc/passwd", "file:///etc/passwd\n", False),
        ("file:///etc/**", "file:///etc/a\nb/c", True),
        ("file:///my docs/*", "file:///my%20docs/a", True),
        ("file:///my%20docs/*", "file:///my docs/a", True),
        ("file:///caf\u00e9/*", "file:///caf%c3%a9/a", True),
        ("https://host.example/*", "HTTPS://Host.Example:443/a", True),
        ("HTTPS://Host.Example:443/*", "https://host.example/a", True),
        ("https://host.example/*", "https://host.example:8443/a", False),
        ("https://host.example:/*", "https://host.example/a", True),
        # What only looks the same.
        ("file:///public/**", "file:///public/../secret", False),
        ("file:///public/**", "file:///public/%2e%2e/secret", False),
        ("file:///public/**", "file:///public/..%2fsecret", False),
        ("file:///public/*", "file:///public/a%2Fb", False),
        ("file:///a%2Ab", "file:///a*b", False),
        ("file:///a%3Fb", "file:///a?b", False),
        ("file:///a/100%", "file:///a/100%25", True),
        ("note://MyNote", "note://mynote", False),
        ("NOTE://MyNote", "note://MyNote", True),
        ("file:///a/*/../b", "file:///a/b", False),
        ("https://h/a?x=../b", "https://h/a?x=../b", True),
        ("*://h/**", "https://h/a", True),
        ("**", "anything at all", True),
    ],
)
def test_resources_are_matched_in_one_spelling(pattern: str, uri: str, matches: bool) -> None:
    assert resource(uri).matches_uri_pattern(pattern) is matches
    assert resource(uri).uri == uri


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("", ""),
        ("a/b", "a/b"),
        ("a/../b", "b"),
        ("a/..", ""),
        ("../a", "a"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("//h/a", "//h/a"),
        ("urn:isbn:1.2", "urn:isbn:1.2"),
        ("x://h/%7ea%2d%zz", "x://h/~a-%25zz"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_the_normal_form_of_odd_addresses(uri: str, normal: str) -> None:
    assert normal_uri(uri) == normal
    assert normal_uri(normal) == normal
    assert resource(uri).canonical_uri == normal
