"""Whole messages out of bytes that come in any pieces."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cpex.framework.external.unix.protocol import MAX_MESSAGE_SIZE, ProtocolError
from cpex.framework.external.unix.stream import ROOM, MessageStream


class Transport(asyncio.Transport):
    """A socket's place: it remembers what was asked of it. What a real one does, the tests of transports show."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closing = False
        self.written: list[bytes] = []

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


class Listener(MessageStream):
    """Keeps what it is told; takes no more than `limit` messages before `go_on`."""

    def __init__(self, limit: int = 1_000_000) -> None:
        super().__init__()
        self.messages: list[bytes] = []
        self.limit = limit
        self.errors: list[ProtocolError | None] = []

    def message_received(self, message: bytes) -> None:
        self.messages.append(message)

    def held(self) -> bool:
        return len(self.messages) >= self.limit

    def broken(self, error: ProtocolError | None) -> None:
        self.errors.append(error)
        self.close()


def framed(*messages: bytes) -> bytes:
    """Messages as they stand on the stream."""
    return b"".join(struct.pack(">I", len(each)) + each for each in messages)


def listener(limit: int = 1_000_000) -> tuple[Listener, Transport]:
    """A stream on a transport."""
    stream, transport = Listener(limit), Transport()
    stream.connection_made(transport)
    return stream, transport


def receive(stream: MessageStream, transport: Transport, data: bytes) -> int:
    """Let the stream receive bytes as an event loop would; how many it took before it stopped reading."""
    taken = 0
    while taken < len(data) and transport.reading and not transport.closing:
        room = stream.get_buffer(-1)
        assert len(room) > 0
        piece = data[taken : taken + len(room)]
        room[: len(piece)] = piece
        taken += len(piece)
        stream.buffer_updated(len(piece))
    return taken


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Data cut at some places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, stop in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:stop]


def on_a_loop(check: Any) -> None:
    """Run a check where there is an event loop."""

    async def run() -> None:
        check()

    asyncio.run(run())


@given(
    st.lists(st.binary(max_size=40) | st.integers(0, 3 * ROOM).map(bytes), max_size=6),
    st.lists(st.integers(0, 400_000), max_size=8),
)
def test_messages_arrive_whole_and_in_order_however_the_bytes_come(messages: list[bytes], cuts: list[int]) -> None:
    def check() -> None:
        stream, transport = listener()
        for piece in pieces(framed(*messages), cuts):
            assert receive(stream, transport, piece) == len(piece)
        assert stream.messages == messages
        assert stream.errors == []

    on_a_loop(check)


@given(
    st.lists(st.binary(max_size=9) | st.integers(0, 2 * ROOM).map(bytes), min_size=1, max_size=12), st.integers(1, 3)
)
def test_what_is_held_back_stops_the_reading_and_is_not_lost(messages: list[bytes], step: int) -> None:
    def check() -> None:
        stream, transport = listener(limit=0)
        data = framed(*messages)
        taken = receive(stream, transport, data)
        assert stream.messages == []
        assert transport.reading is (taken == len(data) and taken < ROOM)
        while len(stream.messages) < len(messages):
            stream.limit += step
            stream.go_on()
            taken += receive(stream, transport, data[taken:])
        assert stream.messages == messages

    on_a_loop(check)


def test_a_message_over_the_limit_is_refused_before_it_comes() -> None:
    def check() -> None:
        stream, transport = listener()
        receive(stream, transport, framed(b"good") + struct.pack(">I", MAX_MESSAGE_SIZE + 1) + b"x")
        assert stream.messages == [b"good"]
        (error,) = stream.errors
        assert "exceeds maximum" in str(error)

    on_a_loop(check)


def test_nothing_is_handed_over_once_the_stream_is_closed() -> None:
    def check() -> None:
        stream, transport = listener(limit=1)
        receive(stream, transport, framed(b"one", b"two"))
        stream.close()
        stream.limit = 9
        stream.go_on()
        assert stream.messages == [b"one"]
        stream.write(b"late")
        assert transport.written == []

    on_a_loop(check)


def test_room_that_a_long_message_took_is_given_back() -> None:
    def check() -> None:
        stream, transport = listener()
        receive(stream, transport, framed(bytes(10 * ROOM)))
        assert len(stream.get_buffer(-1)) == ROOM

    on_a_loop(check)
