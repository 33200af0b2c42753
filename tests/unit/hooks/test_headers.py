"""The header map that is a payload, and the deprecation of headers inside other payloads."""

import copy
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from pydantic import ValidationError

from cpex.framework.hooks.agents import AgentPreInvokePayload
from cpex.framework.hooks.http import (
    HttpAuthResolveUserPayload,
    HttpHeaderPayload,
    HttpPostRequestPayload,
    HttpPreRequestPayload,
)
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.memory import wrap_payload_for_isolation


def test_headers_are_built_from_a_dict_and_copy_it() -> None:
    source = {"A": "1"}
    headers = HttpHeaderPayload(source)
    source["B"] = "2"
    assert headers.root == {"A": "1"}
    assert HttpHeaderPayload(root={"A": "1"}) == headers
    assert HttpHeaderPayload(headers.model_dump()) == headers


@pytest.mark.parametrize("bad", [None, {"A": 1}, [("A", "1")]])
def test_headers_that_are_no_texts_are_refused(bad: object) -> None:
    with pytest.raises(ValidationError):
        HttpHeaderPayload(bad)
    with pytest.raises(ValidationError):
        HttpHeaderPayload()


def test_headers_are_read_and_written_by_their_exact_name() -> None:
    headers = HttpHeaderPayload({"A": "1"})
    headers["B"] = "2"
    assert (headers["A"], headers["B"], len(headers), list(headers)) == ("1", "2", 2, ["A", "B"])
    assert "A" in headers
    assert "a" not in headers
    with pytest.raises(KeyError):
        headers["a"]
    with pytest.raises(ValidationError, match="frozen"):
        headers.root = {}


def test_get_ignores_case_and_prefers_the_exact_name() -> None:
    headers = HttpHeaderPayload({"X-Id": "1", "x-id": "2"})
    assert (headers.get("x-id"), headers.get("X-ID"), headers.get("none"), headers.get("none", "-")) == (
        "2",
        "1",
        None,
        "-",
    )


def test_headers_convert_to_a_dict() -> None:
    headers = HttpHeaderPayload({"A": "1", "B": "2"})
    assert dict(headers) == dict(headers.items()) == dict(zip(headers.keys(), headers.values(), strict=True))
    assert {**headers} == headers.root


def test_empty_headers_are_falsy() -> None:
    assert not HttpHeaderPayload({})
    assert HttpHeaderPayload({"A": ""})


def test_headers_dump_as_the_bare_object() -> None:
    headers = HttpHeaderPayload({"A": "1"})
    assert headers.model_dump() == {"A": "1"}
    assert headers.model_dump_json() == '{"A":"1"}'
    assert ToolPreInvokePayload.model_construct(name="a", args={}, headers=headers).model_dump()["headers"] == {
        "A": "1"
    }


def test_headers_compare_with_headers_only_and_cannot_be_hashed() -> None:
    headers = HttpHeaderPayload({"A": "1"})
    assert headers != {"A": "1"}
    assert copy.deepcopy(headers) == pickle.loads(pickle.dumps(headers)) == headers
    with pytest.raises(TypeError):
        hash(headers)


def test_writing_into_a_view_of_headers_does_not_reach_the_original() -> None:
    original = HttpHeaderPayload({"A": "1"})
    view = wrap_payload_for_isolation(original)
    view["B"] = "2"
    assert type(view) is HttpHeaderPayload
    assert (original.root, view.root) == ({"A": "1"}, {"A": "1", "B": "2"})


# The deprecation.

DEPRECATED = [
    (lambda h: ToolPreInvokePayload(name="a", headers=h), "ToolPreInvokePayload"),
    (lambda h: AgentPreInvokePayload(agent_id="a", messages=[], headers=h), "AgentPreInvokePayload"),
    (lambda h: HttpPreRequestPayload(path="/", method="GET", headers=h), "HttpPreRequestPayload"),
    (lambda h: HttpPostRequestPayload(path="/", method="GET", headers=h, response_headers=h), "HttpPreRequestPayload"),
    (lambda h: HttpAuthResolveUserPayload(headers=h), "HttpAuthResolveUserPayload"),
]


@pytest.mark.parametrize(("construct", "name"), DEPRECATED)
def test_headers_in_a_payload_warn_and_name_the_successor(construct, name: str) -> None:
    text = f"{name}.headers is deprecated; pass headers in extensions.http.headers instead"
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(text)}$") as caught:
        payload = construct({"A": "1"})
    assert payload.headers.root == {"A": "1"}
    assert len(caught) == 1


def test_absent_headers_copies_and_views_do_not_warn() -> None:
    ToolPreInvokePayload(name="a")
    ToolPreInvokePayload(name="a", headers=None)
    with pytest.warns(DeprecationWarning, match="ToolPreInvokePayload"):
        payload = ToolPreInvokePayload(name="a", headers={"A": "1"})
    payload.model_copy(update={"headers": HttpHeaderPayload({})})
    assert wrap_payload_for_isolation(payload).headers == payload.headers


def test_under_the_default_filter_a_class_warns_once_wherever_it_is_built() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            ToolPreInvokePayload(name="a", headers={"A": "1"})
        ToolPreInvokePayload(name="b", headers={})
        HttpAuthResolveUserPayload(headers={})
    assert [str(warning.message).split(".")[0] for warning in caught] == [
        "ToolPreInvokePayload",
        "HttpAuthResolveUserPayload",
    ]


def test_the_warning_points_at_the_code_that_builds_the_payload(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "from cpex.framework.hooks.tools import ToolPreInvokePayload\n"
        "for _ in range(2):\n"
        "    ToolPreInvokePayload(name='a', headers={})\n"
        "ToolPreInvokePayload(name='b', headers={})\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "default", str(script)], check=True, capture_output=True, text=True, timeout=60
    )
    assert run.stderr.splitlines() == [
        f"{script}:3: DeprecationWarning: "
        "ToolPreInvokePayload.headers is deprecated; pass headers in extensions.http.headers instead",
        "  ToolPreInvokePayload(name='a', headers={})",
    ]


def test_the_warning_is_silenced_as_its_documentation_says() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*\.headers is deprecated", DeprecationWarning)
        ToolPreInvokePayload(name="a", headers={"A": "1"})
