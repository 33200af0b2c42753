from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.security.tokens import estimate_tokens, load_tokenizer, rendered


def test_four_bytes_are_a_token() -> None:
    assert [estimate_tokens(text) for text in ("", "abcd", "abcde", "日本語", "\ud800")] == [1, 1, 2, 3, 1]


def test_a_value_counts_as_the_json_that_a_model_reads() -> None:
    assert rendered("a b") == "a b"
    assert rendered({"a": [1, None], "b": b"\xff", "c": object}).startswith('{"a":[1,null],"b":"')


@settings(max_examples=100)
@given(value=st.recursive(st.none() | st.text() | st.binary() | st.floats() | st.integers(), st.lists, max_leaves=5))
def test_anything_can_be_counted(value: object) -> None:
    assert estimate_tokens(rendered(value)) >= 1


def test_a_structure_that_contains_itself_can_be_counted() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert estimate_tokens(rendered(loop)) >= 1


def test_a_tokenizer_may_return_a_number_or_the_tokens() -> None:
    assert load_tokenizer("builtins:len")("abc") == 3
    assert load_tokenizer("textwrap:wrap")("abc") == 1
    assert load_tokenizer("builtins:str.split")("a b c") == 3
    assert load_tokenizer("textwrap.wrap")("abc") == 1


def test_a_tokenizer_cannot_make_a_budget_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backward_tokenizer.py").write_text("def count(text): return -len(text)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    less = load_tokenizer("backward_tokenizer:count")
    with pytest.raises(ValueError) as raised:
        less("abc")
    assert str(raised.value) == "tokenizer `backward_tokenizer:count` counted -3 tokens; it must give zero or more"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module:f", "cannot be loaded (No module named 'no_such_module')"),
        ("math:no_such", "cannot be loaded (module 'math' has no attribute 'no_such')"),
        ("", "cannot be loaded (invalid format: '')"),
        ("math:pi", "is not callable"),
    ],
)
def test_a_tokenizer_that_is_not_there_is_named_with_the_way_to_write_it(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match="tokenizer") as raised:
        load_tokenizer(path)
    assert f"tokenizer `{path}` {reason}" in str(raised.value)
