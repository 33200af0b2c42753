from __future__ import annotations

import pytest

from cpex.builtins.privacy.shapes import CardShapes, plain_bytes, shape_of


def test_a_shape_has_one_byte_for_each_character() -> None:
    assert shape_of(plain_bytes("a_9 .-:@é日𝟙")) == b"AA0 .-:????"
    assert shape_of(plain_bytes("1\u200b2")) == b"0\x7f0"


@pytest.mark.parametrize(
    ("shape", "windows"),
    [
        (b"0000-00-00 00", ()),
        (b"00000000000", ()),
        (b"0000000000000000", ((0, 16),)),
        (b"0000000000000000 -", ((0, 16),)),
        (b"0000 0000 0000 0000 00", ((0, 22), (0, 19), (0, 14), (5, 22), (5, 19))),
    ],
)
def test_a_shape_tells_what_is_worth_a_look(shape: bytes, windows: tuple[tuple[int, int], ...]) -> None:
    assert tuple(window[:2] for window in CardShapes()[shape]) == windows


def test_memory_for_shapes_is_bounded() -> None:
    shapes = CardShapes()
    for length in range(3000):
        assert shapes[f"{length:b}".encode().replace(b"1", b"0 ").ljust(40, b"0")] is not None
    assert 0 < len(shapes) <= 2048
    assert shapes[b"0" * 16 + b" " * 1000]
    assert b"0" * 16 + b" " * 1000 not in shapes
