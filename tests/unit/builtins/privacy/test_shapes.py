from __future__ import annotations

import pytest

from cpex.builtins.privacy.kinds import RANK, PiiType
from cpex.builtins.privacy.shapes import Shapes, shape_of

CARD, SSN, IP = RANK[PiiType.CARD], RANK[PiiType.SSN], RANK[PiiType.IP]


def test_a_shape_has_one_byte_for_each_character() -> None:
    assert shape_of("a_9 .-:@é日𝟙") == b"AA0 .-:????"
    assert shape_of("1\u200b2") == b"0\x7f0"


@pytest.mark.parametrize(
    ("shape", "windows"),
    [
        (b"0000-00-00", ()),
        (b"0000000000", ()),
        (b"000-00-0000", ((0, SSN, 11),)),
        (b"000-00 0000", ()),
        (b"000000000", ((0, SSN, 9),)),
        (b"10.20.30.40".translate(bytes.maketrans(b"1234", b"0000")), ((0, IP, 11),)),
        (b"0000000000000000", ((0, CARD, 16),)),
        (b"0.000000000000000", ()),
        (b"0000000000000.00", ()),
        (b"0000 0000 0000 0000 00", ((0, CARD, 22), (0, CARD, 19), (0, CARD, 14), (5, CARD, 22), (5, CARD, 19))),
    ],
)
def test_a_shape_tells_what_is_worth_a_look(shape: bytes, windows: tuple[tuple[int, int, int], ...]) -> None:
    assert tuple(window[:3] for window in Shapes(list(PiiType)).work_out(shape)) == windows


def test_only_the_types_asked_for_are_worked_out() -> None:
    assert Shapes([PiiType.IP]).work_out(b"0000000000000000") == ()


def test_memory_for_shapes_is_bounded() -> None:
    shapes = Shapes([PiiType.CARD])
    for length in range(3000):
        shapes.work_out(f"{length:b}".encode().replace(b"1", b"0.").ljust(40, b"0"))
    assert len(shapes.known) <= 2048
    shapes.work_out(b"0" * 1000)
    assert b"0" * 1000 not in shapes.known
