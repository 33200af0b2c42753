"""One end of a connection, whole messages at a time: what `protocol.py` says of the bytes, without tasks or streams.

Bytes are received into room that is there already, and each whole message is handed over in the very turn of the event
loop in which its last byte came. What a message means, and to whom it goes, is for the two ends to say.
"""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from typing import cast

from cpex.framework.external.unix.protocol import LENGTH_FORMAT, LENGTH_SIZE, MAX_MESSAGE_SIZE, ProtocolError

__all__ = ["MessageStream"]

ROOM = 64 * 1024
"""Bytes that are received at once. A fresh block of asyncio's usual size for each question, or for each answer, takes
longer to get from the operating system than the question takes to cross."""
_LENGTH = struct.Struct(LENGTH_FORMAT)


class MessageStream(asyncio.BufferedProtocol, ABC):
    """Base of both ends. Whoever derives from it says what to do with a message, and with the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._bytes = bytearray(ROOM)
        self._room = memoryview(self._bytes)
        self._taken = self._received = 0
        """Between the two is what has been received and not handed over yet."""
        self._reading = True
        self._congested = False
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done once the socket is closed."""

    # What an end adds.

    @abstractmethod
    def message_received(self, message: bytes) -> None:
        """Take a message; it may be empty."""

    @abstractmethod
    def broken(self, error: ProtocolError | None) -> None:
        """Take note that no further message comes: the other end has closed its side, or sent no message."""

    def held(self) -> bool:
        """Whether the next message must wait, until `go_on` is called."""
        return False

    # B027: most ends have nothing to do then.
    def flowing(self) -> None:
        """Take note that there is room for writing again."""

    # What an end uses.

    @property
    def open(self) -> bool:
        """Whether something could be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def congested(self) -> bool:
        """Whether the other end does not take what has been written for it; more should wait until `flowing`."""
        return self._congested

    def write(self, message: bytes) -> None:
        """Hand one message of an allowed size to the socket, in one piece: two would be two packets."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_LENGTH.pack(len(message)) + message)

    def close(self) -> None:
        """Close once what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def go_on(self) -> None:
        """Hand over what was held back."""
        self._hand_over()
        if self._transport is not None and not self._reading and not self.held():
            self._reading = True
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._received :]

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        self._hand_over()

    def eof_received(self) -> bool:
        self.broken(None)
        # The end decides when to close: answers may be under way.
        return True

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self.flowing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._room = memoryview(b"")
        if not self.gone.done():
            self.gone.set_result(None)

    def _hand_over(self) -> None:
        needed = LENGTH_SIZE
        while self._received - self._taken >= LENGTH_SIZE and self.open and not self.held():
            (length,) = _LENGTH.unpack_from(self._bytes, self._taken)
            if length > MAX_MESSAGE_SIZE:
                text = f"a message of {length} bytes exceeds maximum of {MAX_MESSAGE_SIZE}"
                self.broken(ProtocolError(text))
                return
            stop = self._taken + LENGTH_SIZE + length
            if stop > self._received:
                needed += length
                break
            message = bytes(self._room[self._taken + LENGTH_SIZE : stop])
            self._taken = stop
            self.message_received(message)
        self._make_room(needed)

    def _make_room(self, needed: int) -> None:
        """See to it that the next bytes have a place, up to the end of a message that has begun."""
        left = self._received - self._taken
        if not left and len(self._bytes) == ROOM:
            self._taken = self._received = 0
            return
        if needed <= len(self._bytes) == ROOM:
            if self._taken:
                self._room[:left] = bytes(self._room[self._taken : self._received])
        elif self._taken or needed > len(self._bytes):
            # A message that is longer than the room, or the end of one.
            larger = bytearray(max(needed, ROOM, left))
            larger[:left] = self._room[self._taken : self._received]
            self._bytes, self._room = larger, memoryview(larger)
        else:
            return
        self._taken, self._received = 0, left
        if self._received == len(self._bytes) and self._transport is not None and self._reading:
            # Full, and the first message in it is held back.
            self._reading = False
            self._transport.pause_reading()
