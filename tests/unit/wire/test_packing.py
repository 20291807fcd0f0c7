"""Packed STEPs: what comes back is what went in, what does not shrink goes as it is, and a bomb yields nothing."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.errors import ProtocolError
from aioseed.specs import ArraySpec
from aioseed.wire.columns import StepLayout, StepMessage
from aioseed.wire.packing import PACKED_STEP_TYPE, Packer, beginning, pack, packed_rows, unpack

IMAGE = StepLayout({"picture": ArraySpec("uint8", (50, 40)), "speed": ArraySpec("float32", (3,))}, 1)
BEGIN = IMAGE.observation_at(1)
RNG = np.random.default_rng(3)


def step(rows: int = 1, *, noise: float = 0.0, layout: StepLayout = IMAGE) -> bytes:
    """Return a STEP of which so large a share of the pixels is noise."""
    message = StepMessage(layout, rows)
    columns = message.columns
    columns.slot[:], columns.epoch[:], columns.reward[:] = np.arange(rows), 2**53 + 1, 0.5
    picture = columns.observation[0]
    picture[...] = np.where(RNG.random(picture.shape) < noise, RNG.integers(0, 256, picture.shape), 7)
    return message.tobytes()


def read(payload: bytes, rows: int = 8, max_bytes: int = 2**20) -> bytes:
    return unpack(IMAGE, payload, packed_rows(IMAGE, payload, rows, max_bytes))


@given(st.integers(1, 8), st.floats(0.0, 1.0))
def test_a_packed_step_stands_for_the_step(rows: int, noise: float) -> None:
    plain = step(rows, noise=noise)
    payload = Packer(IMAGE, 0.5).pack(plain, rows)
    assert len(payload) <= len(plain)
    assert payload == plain or read(payload) == plain


def test_what_stands_before_the_observations_is_not_packed() -> None:
    plain = step(3)
    payload = pack(IMAGE, plain, 3)
    begin = IMAGE.observation_at(3)
    assert payload[0] == PACKED_STEP_TYPE and payload[1:begin] == plain[1:begin]
    assert beginning(IMAGE, payload, 3) == plain[:begin]
    assert zlib.decompress(payload[begin:], wbits=-15) == plain[begin:]
    assert len(payload) < len(plain) / 10


def test_noise_is_tried_again_after_ever_more_messages_and_pictures_at_once_again() -> None:
    packer, noise = Packer(IMAGE, 0.9), step(noise=1.0)
    tries = []
    for number in range(1500):
        before = packer._left
        assert packer.pack(noise, 1) == noise
        if not before:
            tries.append(number)
    assert np.diff(tries).tolist() == [2, 3, 5, 9, 17, 33, 65, 129, 257, 257, 257, 257]
    kinds = [packer.pack(step(), 1)[0] for _ in range(600)]
    assert kinds.index(PACKED_STEP_TYPE) <= 256
    assert set(kinds[kinds.index(PACKED_STEP_TYPE) :]) == {PACKED_STEP_TYPE}


def test_what_shrinks_by_little_is_sent_packed_when_it_was_tried() -> None:
    packer, little = Packer(IMAGE, 0.5), step(noise=0.6)
    assert 0.5 * len(little) < len(pack(IMAGE, little, 1)) < len(little)
    assert [packer.pack(little, 1)[0] for _ in range(4)] == [PACKED_STEP_TYPE, 1, PACKED_STEP_TYPE, 1]
    packer = Packer(IMAGE, len(pack(IMAGE, little, 1)) / len(little))
    assert [packer.pack(little, 1)[0] for _ in range(4)] == [PACKED_STEP_TYPE] * 4


@pytest.mark.parametrize("yields", [0, 1, 2012 - 1, 2012 + 1, 2**26])
def test_a_stream_that_yields_another_size_is_refused_and_takes_no_memory_for_it(yields: int) -> None:
    assert len(step()) - BEGIN == 2012
    # A thousandth of what it yields, as far as messages of that size are let in.
    stream = zlib.compress(bytes(yields), 9, -15)[:1500]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as caught:
            read(bytes([PACKED_STEP_TYPE]) + step()[1:BEGIN] + stream)
        assert tracemalloc.get_traced_memory()[1] < 2**17
    finally:
        tracemalloc.stop()
    assert caught.value.code == "size_mismatch" and caught.value.fatal


def test_a_stream_that_never_ends_or_is_followed_by_something_is_refused() -> None:
    whole = step()
    stream = zlib.compressobj(3, zlib.DEFLATED, -15)
    open_end = stream.compress(whole[BEGIN:]) + stream.flush(zlib.Z_SYNC_FLUSH)
    head = bytes([PACKED_STEP_TYPE]) + whole[1:BEGIN]
    for tail in (open_end, pack(IMAGE, whole, 1)[BEGIN:] + b"\0"):
        with pytest.raises(ProtocolError, match="2012 bytes") as caught:
            read(head + tail)
        assert caught.value.code == "size_mismatch"


def test_what_is_not_smaller_than_the_step_is_refused() -> None:
    whole = step(noise=1.0)
    payload = pack(IMAGE, whole, 1)
    assert len(payload) >= len(whole) and unpack(IMAGE, payload, 1) == whole
    with pytest.raises(ProtocolError, match="packed in 57 to 2067 bytes") as caught:
        read(payload)
    assert caught.value.code == "size_mismatch"


def test_what_comes_to_its_own_size_goes_as_it_is_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = step()
    payload = pack(IMAGE, whole, 1).ljust(len(whole), b"\0")
    with pytest.raises(ProtocolError, match="packed in 57 to 2067 bytes, not 2068"):
        packed_rows(IMAGE, payload, 8, 2**20)
    assert packed_rows(IMAGE, payload[:-1], 8, 2**20) == 1
    monkeypatch.setattr("aioseed.wire.packing.pack", lambda *_: payload)
    assert Packer(IMAGE, 0.5).pack(whole, 1) is whole


def test_what_ends_before_its_observations_is_refused() -> None:
    with pytest.raises(ProtocolError, match=f"packed in {BEGIN + 1} to 2067 bytes, not {BEGIN}") as caught:
        packed_rows(IMAGE, pack(IMAGE, step(), 1)[:BEGIN], 8, 2**20)
    assert caught.value.code == "size_mismatch"


def test_what_stands_for_more_than_a_message_may_have_is_refused() -> None:
    whole = step(3)
    assert read(pack(IMAGE, whole, 3), max_bytes=len(whole)) == whole
    with pytest.raises(ProtocolError, match=f"3 rows are {len(whole)} bytes, and {len(whole) - 1} may be") as caught:
        read(pack(IMAGE, whole, 3), max_bytes=len(whole) - 1)
    assert caught.value.code == "size_mismatch"


def test_a_broken_stream_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="cannot be inflated") as caught:
        read(bytes([PACKED_STEP_TYPE]) + step()[1:BEGIN] + b"\x07" * 30)
    assert caught.value.code == "malformed" and caught.value.fatal


def test_a_claim_of_many_rows_takes_no_memory() -> None:
    layout = StepLayout(ArraySpec("uint8", (84, 84)), 0)
    head = pack(layout, step(layout=StepLayout(ArraySpec("uint8", (84, 84)), 0)), 1)
    for rows in range(1, 5000):
        with pytest.raises(ProtocolError):
            packed_rows(layout, head[:4] + (rows + 1).to_bytes(4, "little") + b"\0" * 10, 2**20, 2**40)
    assert len(layout._offsets) < 10
