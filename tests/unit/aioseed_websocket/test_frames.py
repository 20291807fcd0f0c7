"""Frames without a network: whatever a connection cuts them into, what comes out is what went in."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from unittest import mock

import pytest
from aioseed_websocket import frames
from aioseed_websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    COPIED_BYTES,
    FREE_PARTS,
    PART_BYTES,
    PING,
    PLACED_BYTES,
    PONG,
    RECEIVE_BYTES,
    Closing,
    FrameError,
    FrameReader,
    close_payload,
    frame_head,
    masked,
    scatter,
    unmask,
)
from hypothesis import given
from hypothesis import strategies as st

from aioseed.transport.channel import Place
from aioseed.types import Payload

KEY = b"\x11\x22\x33\x44"
SIZES = (0, 1, 125, 126, 127, COPIED_BYTES, COPIED_BYTES + 1, 2**16 - 1, 2**16, RECEIVE_BYTES + 1, 400_000)


class Heard:
    """A reader and what it has told, views copied at once."""

    def __init__(self, *, from_client: bool = True, max_message_bytes: int = 2**20) -> None:
        self.messages: list[bytes] = []
        self.kinds: list[type] = []
        self.controls: list[tuple[int, bytes]] = []
        self.reader = FrameReader(
            self._message, self._control, from_client=from_client, max_message_bytes=max_message_bytes
        )

    def read(self, data: bytes, cuts: Iterator[int] | None = None) -> None:
        """Hand `data` over in pieces, as an event loop does; other connections spoil the shared buffer in between."""
        while data:
            place = self.reader.buffer()
            count = min(len(place), len(data), next(cuts) if cuts is not None else len(data))
            place[:count], data = data[:count], data[count:]
            self.reader.received(count)
            other = FrameReader(lambda payload: None, lambda kind, payload: None, from_client=True, max_message_bytes=1)
            other.buffer()[:64] = b"\xff" * 64

    def _message(self, payload: Payload) -> None:
        if isinstance(payload, memoryview):
            assert payload.readonly
        self.kinds.append(type(payload))
        self.messages.append(bytes(payload))

    def _control(self, opcode: int, payload: bytes) -> None:
        self.controls.append((opcode, payload))


def frame(payload: bytes, opcode: int = BINARY, key: bytes | None = KEY, *, final: bool = True) -> bytes:
    head = bytearray(frame_head(len(payload), opcode, is_masked=key is not None))
    if not final:
        head[0] &= 0x7F
    return bytes(head) + (b"" if key is None else key + bytes(masked(payload, key)))  # a server's body follows


def body(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [KEY, bytes(4), None], ids=["masked", "zeros", "server"])
def test_every_size_arrives_whole_with_and_without_a_mask(size: int, key: bytes | None) -> None:
    heard = Heard(from_client=key is not None)
    data = frame(body(size), key=key) + (body(size) if key is None else b"")
    heard.read(data * 2)
    assert heard.messages == [body(size)] * 2
    assert heard.kinds == [bytes if size <= COPIED_BYTES else memoryview] * 2
    assert heard.reader.received_bytes == 2 * size


@given(
    st.lists(
        st.tuples(st.sampled_from([BINARY, PING, PONG]), st.integers(0, 300), st.sampled_from([KEY, bytes(4)])),
        max_size=8,
    ),
    st.lists(st.integers(1, 400), min_size=1),
)
def test_any_frames_survive_any_cuts(shapes: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    sent = [(opcode, body(size if opcode == BINARY else size % 126), key) for opcode, size, key in shapes]
    heard = Heard()
    pieces = iter(cuts * 4000)
    heard.read(b"".join(frame(payload, opcode, key) for opcode, payload, key in sent), pieces)
    assert heard.messages == [payload for opcode, payload, _ in sent if opcode == BINARY]
    assert heard.controls == [(opcode, payload) for opcode, payload, _ in sent if opcode != BINARY]


@given(st.binary(max_size=70), st.binary(min_size=4, max_size=4), st.integers(0, 7))
def test_a_mask_is_an_exclusive_or_with_the_key_over_and_over(payload: bytes, key: bytes, skip: int) -> None:
    expected = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    assert bytes(masked(payload, key)) == expected
    view = memoryview(bytearray(skip) + payload)[skip:]
    unmask(view, key)
    assert view.tobytes() == expected


def test_a_key_of_zeros_copies_nothing() -> None:
    payload = body(1000)
    assert masked(payload, bytes(4)) is payload


def test_a_large_message_is_read_to_where_it_stays() -> None:
    heard = Heard()
    whole = frame(body(300_000))
    heard.read(whole[:1000])
    assert len(heard.reader.buffer()) == len(whole) - 1000
    heard.read(whole[1000:])
    assert heard.messages == [body(300_000)]
    assert len(heard.reader.buffer()) == RECEIVE_BYTES


def test_a_message_in_parts_is_one_and_control_frames_may_come_between() -> None:
    heard = Heard()
    heard.read(frame(b"one ", final=False) + frame(b"!", PING) + frame(b"two ", CONTINUATION, final=False))
    assert (heard.messages, heard.controls) == ([], [(PING, b"!")])
    heard.read(frame(b"three", CONTINUATION) + frame(b"next"))
    assert heard.messages == [b"one two three", b"next"]


def test_a_message_in_parts_may_be_as_large_as_any_other_and_no_larger() -> None:
    heard = Heard(max_message_bytes=10)
    heard.read(frame(bytes(4), final=False) + frame(bytes(6), CONTINUATION))
    assert heard.messages == [bytes(10)] and heard.reader.received_bytes == 10
    with pytest.raises(FrameError, match="at least 11 bytes"):
        heard.read(frame(bytes(4), final=False) + frame(bytes(7), CONTINUATION))


def test_a_message_comes_in_so_many_parts_and_no_more() -> None:
    heard = Heard()
    heard.read(frame(b"x", final=False) + (FREE_PARTS - 2) * frame(b"", CONTINUATION, final=False))
    heard.read(frame(b"y", CONTINUATION) + frame(b"x", final=False))
    assert heard.messages == [b"xy"]
    heard.read((FREE_PARTS - 1) * frame(b"", CONTINUATION, final=False))
    with pytest.raises(FrameError, match="too many parts for its size") as caught:
        heard.read(frame(b"", CONTINUATION))
    assert caught.value.code == 1009


def test_a_large_message_may_come_in_more_parts_and_no_part_is_too_small_for_long() -> None:
    heard = Heard()
    heard.read(frame(b"", final=False) + 2000 * frame(bytes(PART_BYTES), CONTINUATION, final=False))
    heard.read(frame(b"end", CONTINUATION))
    assert heard.messages == [bytes(2000 * PART_BYTES) + b"end"]
    heard.read(frame(b"", final=False) + 2000 * frame(bytes(PART_BYTES), CONTINUATION, final=False))
    with pytest.raises(FrameError, match="too many parts for its size"):
        heard.read(FREE_PARTS * frame(b"x", CONTINUATION, final=False))


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (frame(b"x" * 11), 1009, "at least 11 bytes"),
        (frame(b"x" * 8, final=False) + frame(b"x" * 3, CONTINUATION), 1009, "at least 11 bytes"),
        (struct.pack("!BBQ", 0x82, 0xFF, 2**64 - 1) + KEY, 1009, "too large"),
        (frame(b"x", 0x1), 1003, "text"),
        (frame(b"x", 0x3), 1002, "type 3"),
        (frame(b"x", 0xB), 1002, "type 11"),
        (frame(b"x", CONTINUATION), 1002, "part"),
        (frame(b"x", final=False) + frame(b"x"), 1002, "part"),
        (frame(b"x", PING, final=False), 1002, "control frame"),
        (frame(b"x" * 126, PING), 1002, "control frame"),
        (b"\xc2" + frame(b"x")[1:], 1002, "reserved bit"),
        (struct.pack("!BBH", 0x82, 0xFE, 1) + KEY + b"x", 1002, "shorter"),
        (struct.pack("!BBH", 0x82, 0xFE, 1) + bytes(4) + b"x", 1002, "shorter"),
        (2 * (struct.pack("!BBH", 0x82, 0xFE, 1) + bytes(4) + b"x"), 1002, "shorter"),
        (struct.pack("!BBQ", 0x82, 0xFF, 126) + KEY + bytes(126), 1002, "shorter"),
        (frame_head(1) + b"x", 1002, "without a mask"),
    ],
)
def test_what_breaks_the_protocol_is_refused_with_its_code(data: bytes, code: int, words: str) -> None:
    for cuts in (None, iter([1] * 1000)):
        with pytest.raises(FrameError, match=words) as caught:
            Heard(max_message_bytes=10).read(data, cuts)
        assert caught.value.code == code


def test_a_server_that_masks_is_refused_by_its_client() -> None:
    with pytest.raises(FrameError, match="with a mask"):
        Heard(from_client=False).read(frame(b"x"))


def test_a_frame_that_only_claims_to_be_large_is_not_allocated_beyond_the_bound() -> None:
    heard = Heard(max_message_bytes=1000)
    with pytest.raises(FrameError):
        heard.read(struct.pack("!BBQ", 0x82, 0xFF, 1001) + KEY)
    assert len(heard.reader.buffer()) == RECEIVE_BYTES


@pytest.mark.parametrize(
    ("payload", "code", "reason", "clean"),
    [
        (b"", 1005, "", True),
        (close_payload(1000, "bye"), 1000, "bye", True),
        (close_payload(1001), 1001, "", True),
        (close_payload(1011, "no"), 1011, "no", False),
        *((close_payload(code), code, "", False) for code in (1002, 1003, 1007, 1014, 3000, 4999)),
    ],
)
def test_close_frame_says_how_it_ended(payload: bytes, code: int, reason: str, clean: bool) -> None:
    closing = Closing(payload)
    assert (closing.code, closing.reason, closing.is_clean) == (code, reason, clean)


@pytest.mark.parametrize(
    "payload", [b"x", *map(close_payload, (999, 1004, 1005, 1006, 1015, 2999, 5000)), b"\x03\xe8\xff"]
)
def test_close_frame_that_is_none_is_a_breach(payload: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        Closing(payload)
    assert caught.value.code == 1002


def test_close_frames_are_controls() -> None:
    heard = Heard()
    heard.read(frame(close_payload(1000, "bye"), CLOSE))
    heard.read(frame(bytes(125), PING))
    assert heard.controls == [(CLOSE, close_payload(1000, "bye")), (PING, bytes(125))]


def test_fed_bytes_are_read_like_received_ones() -> None:
    heard = Heard()
    heard.reader.feed(frame(body(300_000)) + frame(b"behind"))
    assert heard.messages == [body(300_000), b"behind"]


BEGINNING = 340
"""Bytes of a message before what goes to its place."""


class Placed(Heard):
    """A reader that is given a place, of several pieces, for the end of each large message.

    Args:
        arrived: How much has arrived of what follows, each time when that is asked; more than is wanted at last.
        begins: Where the end begins that is given a place.
        comes: What is read at most of what has arrived.
    """

    def __init__(self, *arrived: int, begins: int = BEGINNING, comes: int = 2**30) -> None:
        super().__init__()
        self.arrived = [*arrived]
        self.begins = begins
        self.comes = comes
        self.wanted = True
        self.asked: list[tuple[int, bytes]] = []
        self.in_place: list[bytes] = []
        self.stream = b""
        self.reader = FrameReader(
            self._message,
            self._control,
            from_client=True,
            max_message_bytes=2**20,
            place=self._place,
            read_arrived=self._read_arrived,
        )

    def read(self, data: bytes, cuts: Iterator[int] | None = None) -> None:
        """Let `data` come, of which the reader takes by itself what it is handed in no piece."""
        self.stream += data
        while self.stream:
            super().read(self._next(next(cuts) if cuts is not None else len(self.stream)))

    def _next(self, count: int) -> bytes:
        count = min(count, len(self.reader.buffer()))
        piece, self.stream = self.stream[:count], self.stream[count:]
        return piece

    def _read_arrived(self, pieces: Sequence[memoryview], size: int) -> int:
        arrived = min(self.arrived.pop(0) if self.arrived else 2**30, len(self.stream))
        if arrived < size:
            return 0
        come, self.stream = self.stream[: min(size, self.comes)], self.stream[min(size, self.comes) :]
        scatter([memoryview(come)], pieces)
        return len(come)

    def _place(self, size: int, beginning: memoryview) -> Place | None:
        assert beginning.readonly
        there = bytes(beginning[: self.begins])
        self.asked.append((size, there))
        end = size - self.begins
        pieces = [memoryview(bytearray(count)) for count in (end // 3, 1, end - end // 3 - 1)]
        if len(there) < self.begins or not self.wanted:
            return None
        return Place(pieces, lambda: self.in_place.append(there + b"".join(pieces)) is None)


@pytest.mark.parametrize("key", [KEY, bytes(4)], ids=["masked", "zeros"])
@pytest.mark.parametrize("size", [PLACED_BYTES - 1, PLACED_BYTES, RECEIVE_BYTES + 1, 400_003])
@pytest.mark.parametrize("first_read", [14, 14 + BEGINNING, 2000, 10**6])
@pytest.mark.parametrize("begins", [BEGINNING, BEGINNING + 3])
def test_the_end_of_a_large_message_goes_to_its_place(size: int, key: bytes, first_read: int, begins: int) -> None:
    heard = Placed(begins=begins)
    heard.read(frame(body(size), key=key), iter([first_read, *[10**6] * 9]))
    large = size >= PLACED_BYTES
    assert (heard.in_place, heard.messages) == (([body(size)], []) if large else ([], [body(size)]))
    assert heard.reader.received_bytes == size


def test_the_next_message_is_read_as_far_as_its_place_begins_and_the_rest_by_itself() -> None:
    heard = Placed()
    heard.read(frame(body(200_000), key=bytes(4)))
    for size in (200_000, 300_000):
        assert len(heard.reader.buffer()) == 14 + BEGINNING
        whole = frame(body(size), key=bytes(4))
        heard.stream = whole[14 + BEGINNING :]
        Heard.read(heard, whole[: 14 + BEGINNING])
        assert heard.in_place[-1] == body(size) and not heard.stream
    assert not heard.messages
    heard.read(frame(b"small") + frame(body(20_000)))
    assert heard.messages == [b"small", body(20_000)]
    assert len(heard.reader.buffer()) == RECEIVE_BYTES


@pytest.mark.parametrize("key", [KEY, bytes(4)], ids=["masked", "zeros"])
@pytest.mark.parametrize("come", [0, 1, 100_000, 198_000])
def test_what_is_not_read_to_its_place_at_once_is_a_message_like_any_other(come: int, key: bytes) -> None:
    heard, whole = Placed(comes=come), frame(body(200_000), key=key)
    heard.stream = whole[1000:]
    Heard.read(heard, whole[:1000])
    assert (len(heard.asked), heard.in_place) == (1, [])
    heard.wanted = False
    heard.read(b"")
    assert (heard.in_place, heard.messages) == ([], [body(200_000)])


def test_a_message_that_has_not_arrived_is_read_as_it_comes() -> None:
    heard, whole = Placed(), frame(body(200_000))
    heard.read(whole[:180_000], iter([1000, 10**6]))
    assert len(heard.asked) == 1 and heard.in_place == []
    heard.read(whole[180_000:])
    assert heard.in_place == [body(200_000)]  # copied, like one that was read at once


def test_a_place_that_begins_beyond_what_is_there_is_given_when_all_is() -> None:
    heard = Placed(begins=10**5)
    heard.read(frame(body(200_000)), iter([14, 10**6]))
    assert heard.asked[0] == (200_000, b"") and heard.in_place == [body(200_000)]


def test_a_message_that_nobody_wants_in_a_place_comes_whole() -> None:
    heard = Placed()
    heard.wanted = False
    heard.read(frame(body(200_000)) * 2 + frame(body(300_000)))
    assert heard.messages == [body(200_000)] * 2 + [body(300_000)]


@pytest.mark.parametrize("key", [KEY, bytes(4)], ids=["masked", "zeros"])
def test_a_large_part_of_a_message_has_no_place(key: bytes) -> None:
    heard = Placed()
    heard.read(frame(body(200_000), key=key, final=False), iter([2000, *[10**6] * 9]))
    heard.read(frame(b"end", CONTINUATION))
    assert heard.messages == [body(200_000) + b"end"] and not heard.asked and not heard.in_place


def test_what_is_fed_is_not_mixed_with_what_has_arrived_behind_it() -> None:
    heard, whole = Placed(), frame(body(300_000))
    heard.stream = b"\0" * 300_000
    heard.reader.feed(whole)
    assert (heard.in_place, heard.messages) == ([], [body(300_000)]) and len(heard.stream) == 300_000


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.booleans())),
    st.lists(st.integers(1, 400) | st.integers(1, 2000), min_size=1),
    st.lists(st.integers(0, 1000)),
    st.integers(0, 1000),
)
def test_any_messages_survive_any_cuts_and_places(
    messages: list[tuple[int, bool]], cuts: list[int], arrived: list[int], comes: int
) -> None:
    heard, whole = Placed(*arrived, comes=comes), []
    heard.messages = heard.in_place = whole  # in one order
    sent = [(body(size), KEY if hides else bytes(4)) for size, hides in messages]
    with mock.patch.object(frames, "PLACED_BYTES", 2 * BEGINNING), mock.patch.object(frames, "COPIED_BYTES", BEGINNING):
        heard.read(b"".join(frame(payload, key=key) for payload, key in sent), itertools.cycle(cuts))
    assert whole == [payload for payload, _ in sent]


@pytest.mark.parametrize("pieces", [[3, 4], [0, 7], [7], [1] * 7, [5, 0, 9]])
def test_bytes_are_scattered_over_pieces_in_their_order(pieces: list[int]) -> None:
    memory = [memoryview(bytearray(count)) for count in pieces]
    left = scatter([memoryview(b"abc"), memoryview(b""), memoryview(b"defg")], memory)
    assert b"".join(memory)[:7] == b"abcdefg" and sum(map(len, left)) == sum(pieces) - 7


@pytest.mark.parametrize("before", [b"", frame(bytes(200), key=bytes(4))], ids=["alone", "behind another"])
def test_a_usual_frame_is_bounded_and_no_part_of_a_message_as_any_other(before: bytes) -> None:
    """Those that no mask hides are read by a shorter road."""
    with pytest.raises(FrameError, match="too large"):
        Heard(max_message_bytes=250).read(before + frame(bytes(251), key=bytes(4)))
    with pytest.raises(FrameError, match="shorter"):
        Heard().read(before + struct.pack("!BBH", 0x82, 0xFE, 125) + bytes(4 + 125))
    heard = Heard()
    heard.read(before + frame(bytes(200), key=bytes(4), final=False))
    with pytest.raises(FrameError, match="where none belongs"):
        heard.read(frame(bytes(200), key=bytes(4)))
