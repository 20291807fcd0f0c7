from __future__ import annotations

from unittest import mock

import pytest
from aioseed_grpc import frame
from aioseed_grpc.frame import MAX_ENVELOPE_BYTES, MAX_FIELDS, FrameError, decode, encode
from hypothesis import given
from hypothesis import strategies as st


def varint(value: int) -> bytes:
    """Write a number as protobuf does; an oracle of its own."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F)
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def field(number: int, kind: int, content: bytes) -> bytes:
    return varint(number << 3 | kind) + content


def payload_field(payload: bytes) -> bytes:
    return field(1, 2, varint(len(payload)) + payload)


numbers = st.integers(1, 2**29 - 1)
other_numbers = st.integers(2, 2**29 - 1)
scalars = st.one_of(
    st.builds(lambda n, v: field(n, 0, varint(v)), numbers, st.integers(0, 2**64 - 1)),
    st.builds(lambda n, v: field(n, 1, v), numbers, st.binary(min_size=8, max_size=8)),
    st.builds(lambda n, v: field(n, 2, varint(len(v)) + v), other_numbers, st.binary(max_size=300)),
    st.builds(lambda n, v: field(n, 5, v), numbers, st.binary(min_size=4, max_size=4)),
)
unknown_fields = st.recursive(
    scalars,
    lambda inner: st.builds(
        lambda n, content: field(n, 3, b"".join(content)) + field(n, 4, b""), other_numbers, st.lists(inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.binary(max_size=70_000))
def test_what_is_encoded_is_decoded(payload: bytes) -> None:
    assert decode(encode(payload)) == payload


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21])
def test_envelope_is_a_tag_and_a_length(size: int) -> None:
    frame = encode(bytes(size))
    assert frame == b"\x0a" + varint(size) + bytes(size)
    assert len(frame) <= size + MAX_ENVELOPE_BYTES
    assert decode(frame) == bytes(size)


def test_empty_payload_is_left_out_or_written() -> None:
    assert encode(b"") == b""
    assert decode(b"") == b""
    assert decode(b"\x0a\x00") == b""


@given(st.lists(st.one_of(unknown_fields, st.binary(max_size=300)), max_size=6))
def test_unknown_fields_are_skipped_and_the_last_payload_counts(parts: list[bytes]) -> None:
    # Every second part is a payload, the others are fields that a later version may have.
    payload = b""
    data = b""
    for index, part in enumerate(parts):
        if index % 2:
            payload = part
            data += payload_field(part)
        else:
            data += field(7, 2, varint(len(part)) + part)
    assert decode(data) == payload


@given(st.lists(unknown_fields, max_size=4), st.lists(unknown_fields, max_size=4), st.binary(max_size=200))
def test_payload_is_found_among_any_unknown_fields(before: list[bytes], after: list[bytes], payload: bytes) -> None:
    with mock.patch.object(frame, "MAX_FIELDS", 1000):
        assert decode(b"".join(before) + payload_field(payload) + b"".join(after)) == payload


@pytest.mark.parametrize(
    ("begin", "field_bytes", "end", "count"),
    [
        (b"", b"\x10\x00", b"", MAX_FIELDS - 1),
        (b"", b"\x0a\x00", b"", MAX_FIELDS - 1),
        (b"", field(7, 2, varint(10_000) + bytes(10_000)), b"", MAX_FIELDS - 1),
        (b"\x1b", b"\x10\x00", b"\x1c", MAX_FIELDS - 3),
        (b"\x1b\x1b", b"\x1b\x1c", b"\x1c\x1c", (MAX_FIELDS - 5) // 2),
    ],
    ids=["numbers", "payloads", "large", "in a group", "groups in groups"],
)
def test_a_frame_has_so_many_fields_and_no_more(begin: bytes, field_bytes: bytes, end: bytes, count: int) -> None:
    assert decode(begin + count * field_bytes + end + payload_field(b"x" * 100_000)) == b"x" * 100_000
    with pytest.raises(FrameError, match="more than 32 fields"):
        decode(begin + (count + 1) * field_bytes + end + payload_field(b"x" * 100_000))


@given(unknown_fields)
def test_truncated_field_is_malformed(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(data[:-1])


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # no length
        b"\x0a\x05four",  # payload too short
        b"\x0a\x80",  # length cut off
        b"\x0a" + b"\x80" * 10 + b"\x00",  # number of more than 10 bytes
        b"\x0a" + b"\xff" * 9 + b"\x7f",  # number of more than 64 bits
        b"\x0a" + b"\xff" * 9 + b"\x01",  # length of 2**64 - 1
        b"\x02\x00",  # field 0
        b"\x0e",  # kind 6
        b"\x0f",  # kind 7
        b"\x0c",  # end of a group that never began
        b"\x0b",  # group that never ends
        b"\x0b\x14",  # group that ends as another
        b"\x0b" * 100 + b"\x0c" * 100,  # groups without bound
        b"\x0d\x00\x00\x00",  # 32 bits cut off
        varint(1 << 35) + b"\x00",  # field number beyond 29 bits
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(data)


@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        payload = decode(data)
    except FrameError:
        return
    assert payload in data


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(encode)))
def test_the_short_way_of_reading_agrees_with_the_long_one(data: bytes) -> None:
    try:
        expected: bytes | str = frame._decode_fields(data)
    except FrameError as error:
        expected = str(error)
    try:
        assert decode(data) == expected
    except FrameError as error:
        assert str(error) == expected


def test_sizes_that_were_seen_take_bounded_memory() -> None:
    for size in range(3 * frame.KEPT_SIZES):
        decode(encode(bytes(size)))
    assert frame._head.cache_info().currsize <= frame.KEPT_SIZES
    assert frame._head_within.cache_info().currsize <= frame.KEPT_SIZES
