"""Frames of WebSocket messages (RFC 6455, section 5), without a network: bytes in, messages out.

A reader says where the next bytes belong, so that a large message is read from the socket straight to where it stays.
All readers of a thread share one buffer for what is small: the event loop reads into it and hands it over at once.
"""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aioseed.transport.channel import MakePlace, Place
from aioseed.types import Payload
from aioseed_websocket.scatter import ReadArrived

RECEIVE_BYTES = 256 * 2**10
"""Read at once at most, where no large message is under way."""
COPIED_BYTES = 16 * 2**10
"""Messages up to this size are handed over as `bytes`, since these are quicker to take apart than views are."""
PLACED_BYTES = 128 * 2**10
"""Messages from this size on are read to a place of their receiver's choice, if it has one."""
MAX_CONTROL_BYTES = 125
FREE_PARTS = 16
PART_BYTES = 64
"""A message comes in `FREE_PARTS` at most and one more for each `PART_BYTES`: the event loop looks at each of them."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED, TOO_BIG = 1000, 1001, 1002, 1003, 1009
NO_CODE = 1005
"""Stands for a close frame that has no code; never sent."""

_FINAL = 0x80
_WHOLE_BINARY = _FINAL | BINARY
_MASKED = 0x80
_NO_KEY = bytes(4)
_HEAD_7, _HEAD_16, _HEAD_64 = (struct.Struct(form).pack for form in ("!BB", "!BBH", "!BBQ"))
_USUAL_OF_CLIENT, _USUAL_OF_SERVER = struct.Struct("!HH4s"), struct.Struct("!HH0s")
_SIZE_16, _SIZE_64, _CODE = (struct.Struct(form) for form in ("!H", "!Q", "!H"))


class FrameError(Exception):
    """Say why what came is no frame that may come, with the code of the close frame that answers it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Closing:
    """Read a close frame's payload.

    Raises:
        FrameError: It is none.
    """

    def __init__(self, payload: bytes) -> None:
        self.code, self.reason = NO_CODE, ""
        if not payload:
            return
        if len(payload) == 1:
            raise FrameError(PROTOCOL_ERROR, "the peer sent a close frame with half a code")
        (self.code,) = _CODE.unpack_from(payload)
        if not (3000 <= self.code < 5000 or 1000 <= self.code <= 1014) or self.code in (1004, 1005, 1006):
            raise FrameError(PROTOCOL_ERROR, f"the peer sent a close frame with the code {self.code}")
        try:
            self.reason = payload[2:].decode()
        except UnicodeDecodeError:
            raise FrameError(PROTOCOL_ERROR, "the peer sent a close frame whose reason is no UTF-8") from None

    @property
    def is_clean(self) -> bool:
        """Say whether the peer meant to go."""
        return self.code in (NO_CODE, NORMAL, GOING_AWAY)


class FrameReader:
    """Turn what arrives on one connection into messages and control frames.

    Args:
        message: Takes a whole message; a view is good until the call returns.
        control: Takes the type of a close, ping or pong frame, and its payload.
        from_client: Whether the peer is a client, whose frames must be masked; a server's must not.
        max_message_bytes: Larger messages are refused on their first head.
        place: Asked for the place of a large message's end; what it gives is filled before anything else is done.
        read_arrived: Reads what has arrived beyond what it was handed; without it no place is asked for.
    """

    def __init__(
        self,
        message: Callable[[Payload], None],
        control: Callable[[int, bytes], None],
        *,
        from_client: bool,
        max_message_bytes: int,
        place: MakePlace | None = None,
        read_arrived: ReadArrived | None = None,
    ) -> None:
        self.received_bytes = 0  # of messages
        self._ask = place if read_arrived is not None else None
        self._read_arrived = read_arrived
        self._message = message
        self._control = control
        self._mask_bit = _MASKED if from_client else 0
        # Of the frames that nearly all are: a whole message of 126 to 65,535 bytes that no mask hides.
        form = _USUAL_OF_CLIENT if from_client else _USUAL_OF_SERVER
        self._usual = form.unpack_from
        self._usual_kind = _WHOLE_BINARY << 8 | self._mask_bit | 126
        self._usual_key = _NO_KEY if from_client else b""
        self._usual_begin = form.size
        self._max_bytes = max_message_bytes
        self._buffer, self._view = _shared_buffer()
        self._next = self._view  # where the next frame is read to: less, if its end is to go elsewhere
        self._begun = b""  # of a frame whose head is not there yet
        self._fragments: bytearray | None = None  # of a message that comes in several frames
        self._parts = 0  # so many of them were there
        self._filling: memoryview | None = None  # the payload that is being read
        self._have = 0  # bytes of it
        self._first = 0  # its frame's first byte
        self._key = _NO_KEY

    def buffer(self) -> memoryview:
        """Return where the next bytes are to be written."""
        return self._next if self._filling is None else self._filling[self._have :]

    def received(self, count: int) -> None:
        """Take `count` bytes that were written there.

        Raises:
            FrameError: They break the protocol; nothing that follows means anything.
        """
        if self._filling is None and not self._begun:
            # Nearly always a message is there as a whole, and nothing else: then no other function is called.
            kind, size, key = self._usual(self._buffer)
            begin = count - size
            usual = kind == self._usual_kind and key == self._usual_key and begin == self._usual_begin
            if usual and 126 <= size <= COPIED_BYTES and size <= self._max_bytes and self._fragments is None:
                self.received_bytes += size
                self._message(self._view[begin:count].tobytes())
            else:
                self._read(self._buffer, self._view, count)
        elif self._filling is None:
            data = bytearray(self._begun) + self._view[:count]
            self._begun = b""
            self._read(data, memoryview(data), len(data))
        else:
            self._have += count
            if self._have == len(self._filling):
                payload, self._filling = self._filling, None
                self._finish(self._first, self._key, payload)

    def feed(self, data: bytes) -> None:
        """Take bytes that came another way.

        Raises:
            FrameError: As of `received`.
        """
        ask, self._ask = self._ask, None  # what has arrived on the connection comes behind these
        rest = memoryview(data)
        while rest:
            place = self.buffer()
            count = min(len(place), len(rest))
            place[:count], rest = rest[:count], rest[count:]
            self.received(count)
        self._ask = ask

    def _read(self, data: bytearray, view: memoryview, end: int) -> None:
        at = self._read_usual(data, view, end) if self._fragments is None else 0
        while end - at >= 2:
            first, second = data[at], data[at + 1]
            size, begin = second & 0x7F, at + 2
            if size >= 126:
                form = _SIZE_16 if size == 126 else _SIZE_64
                if end - begin < form.size:
                    break
                (size,) = form.unpack_from(data, begin)
                begin += form.size
                if size < (126 if form is _SIZE_16 else 2**16):
                    raise FrameError(PROTOCOL_ERROR, "the peer sent a frame whose size could be written shorter")
            usual = first == _WHOLE_BINARY and second & _MASKED == self._mask_bit and self._fragments is None
            if not usual or size > self._max_bytes:
                self._check(first, second, size)
            key = _NO_KEY
            if self._mask_bit:
                if end - begin < 4:
                    break
                key = view[begin : begin + 4].tobytes()
                begin += 4
            at = begin + size
            if at > end:
                self._begin(first, key, size, view[begin:end])
                return
            self._finish(first, key, view[begin:at])
        if at < end:
            self._begun = view[at:end].tobytes()

    def _read_usual(self, data: bytearray, view: memoryview, end: int) -> int:
        """Take usual frames until another comes, and return where that begins."""
        at, head = 0, self._usual_begin
        while end - at >= head:
            kind, size, key = self._usual(data, at)
            begin = at + head
            stop = begin + size
            if kind != self._usual_kind or key != self._usual_key:
                break
            if stop > end or not 126 <= size <= self._max_bytes:
                break
            at = stop
            self._hand_over(view[begin:stop])
        return at

    def _begin(self, first: int, key: bytes, size: int, there: memoryview) -> None:
        begun = [there]
        if self._ask is None or first != _WHOLE_BINARY or size < PLACED_BYTES:
            self._next = self._view
        elif (place := self._place_of(key, size, there)) is not None:
            begun += self._read_to(place, key, size, there)
        self._have = sum(map(len, begun))
        if self._have == size:
            return
        # Not zeroed, and untouched pages cost nothing: who only claims a size takes no memory.
        self._filling = np.empty(size, np.uint8).data
        scatter(begun, (self._filling,))
        self._first, self._key = first, key

    def _place_of(self, key: bytes, size: int, there: memoryview) -> Place | None:
        """Return the place of a message's end, and see that the next message is read only as far as that."""
        if self._ask is None:
            return None
        if key != _NO_KEY:
            there = memoryview(bytearray(there))
            unmask(there, key)
        place = self._ask(size, there.toreadonly())
        if place is not None:
            head = len(frame_head(size)) + (4 if self._mask_bit else 0)
            self._next = self._view[: head + size - sum(map(len, place.memory))]
        return place

    def _read_to(self, place: Place, key: bytes, size: int, there: memoryview) -> list[memoryview]:
        """Read the rest of a message to its place, if all of it has arrived, and return what was read."""
        begin = size - sum(map(len, place.memory))
        rest = scatter([there[begin:]], place.memory)
        missing = size - len(there)
        read = 0 if self._read_arrived is None else self._read_arrived(rest, missing)
        if read < missing:
            return _first_bytes(rest, read)  # hardly ever more than nothing: it is taken from there again
        if key != _NO_KEY:
            for piece in place.memory:
                unmask(piece, key[begin & 3 :] + key[: begin & 3])
                begin += len(piece)
        self.received_bytes += size
        place.filled()
        return rest

    def _finish(self, first: int, key: bytes, payload: memoryview) -> None:
        if key != _NO_KEY:
            unmask(payload, key)
        if first == _WHOLE_BINARY:
            self._hand_over(payload)
        elif first & 0x8:
            self._control(first & 0xF, payload.tobytes())
        else:
            self._collect(first, payload)

    def _hand_over(self, payload: memoryview) -> None:
        size = len(payload)
        self.received_bytes += size
        if size >= PLACED_BYTES and (place := self._place_of(_NO_KEY, size, payload)) is not None:
            scatter([payload[size - sum(map(len, place.memory)) :]], place.memory)
            place.filled()
            return
        self._message(payload.tobytes() if size <= COPIED_BYTES else payload.toreadonly())

    def _collect(self, first: int, payload: memoryview) -> None:
        if self._fragments is None:
            self._fragments, self._parts = bytearray(), 0
        self.received_bytes += len(payload)
        self._fragments += payload
        self._parts += 1
        if self._parts > FREE_PARTS + len(self._fragments) // PART_BYTES:
            raise FrameError(TOO_BIG, "the peer sent a message in too many parts for its size")
        if first & _FINAL:
            whole, self._fragments = bytes(self._fragments), None
            self._message(whole)

    def _check(self, first: int, second: int, size: int) -> None:
        """Let a frame through that is not a whole binary message of a legal size, or refuse it."""
        opcode = first & 0xF
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "the peer sent a frame with a reserved bit")
        if second & _MASKED != self._mask_bit:
            raise FrameError(PROTOCOL_ERROR, f"the peer sent a frame {'without' if self._mask_bit else 'with'} a mask")
        if opcode in (CLOSE, PING, PONG):
            if size > MAX_CONTROL_BYTES or not first & _FINAL:
                raise FrameError(PROTOCOL_ERROR, "the peer sent a control frame that is too large or in parts")
            return
        if opcode == TEXT:
            raise FrameError(UNSUPPORTED, "the peer sent a text message")
        if opcode not in (CONTINUATION, BINARY):
            raise FrameError(PROTOCOL_ERROR, f"the peer sent a frame of the unknown type {opcode}")
        if (opcode == CONTINUATION) == (self._fragments is None):
            raise FrameError(PROTOCOL_ERROR, "the peer sent a part of a message where none belongs")
        size += len(self._fragments or b"")
        if size > self._max_bytes:
            raise FrameError(TOO_BIG, f"the peer sent a message of at least {size} bytes, which is too large")


@functools.lru_cache(maxsize=1024)
def frame_head(size: int, opcode: int = BINARY, *, is_masked: bool = False) -> bytes:
    """Return what stands before the key and the payload of `size` bytes in one frame (RFC 6455, section 5.2)."""
    mask = _MASKED if is_masked else 0
    if size < 126:
        return _HEAD_7(_FINAL | opcode, mask | size)
    if size < 2**16:
        return _HEAD_16(_FINAL | opcode, mask | 126, size)
    return _HEAD_64(_FINAL | opcode, mask | 127, size)


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; `reason` has at most 123 bytes of UTF-8."""
    return _CODE.pack(code) + reason.encode()


def masked(payload: bytes, key: bytes) -> bytes | memoryview:
    """Return a masked copy of `payload`, or itself where the key changes nothing."""
    if key == _NO_KEY:
        return payload
    copy = np.frombuffer(payload, np.uint8).copy().data
    unmask(copy, key)
    return copy


def unmask(payload: memoryview, key: bytes) -> None:
    """Put a mask on or take it off, in place: both are one exclusive or (RFC 6455, section 5.3)."""
    whole = len(payload) & ~3
    if whole:
        words = np.frombuffer(payload[:whole], np.uint32)
        np.bitwise_xor(words, np.frombuffer(key, np.uint32)[0], words)
    for at in range(whole, len(payload)):
        payload[at] ^= key[at & 3]


def scatter(sources: Iterable[memoryview], pieces: Iterable[memoryview]) -> list[memoryview]:
    """Copy `sources`, one behind the other, to pieces of memory, and return what of these is left."""
    left = list(pieces)
    for source in sources:
        while source:
            count = min(len(source), len(left[0]))
            left[0][:count], source = source[:count], source[count:]
            left[0] = left[0][count:]
            if not left[0]:
                del left[0]
    return left


def _first_bytes(pieces: Sequence[memoryview], count: int) -> list[memoryview]:
    found = []
    for piece in pieces:
        found.append(piece[:count])
        count -= len(found[-1])
    return found


_SHARED = threading.local()


def _shared_buffer() -> tuple[bytearray, memoryview]:
    if not hasattr(_SHARED, "buffer"):
        _SHARED.buffer = bytearray(RECEIVE_BYTES)
        _SHARED.view = memoryview(_SHARED.buffer)
    return _SHARED.buffer, _SHARED.view
