"""The envelope ``message Frame { bytes payload = 1; bool closing = 2; }``, by hand so that no protobuf is needed.

Reading follows the protobuf rules: fields may come in any order, unknown ones are skipped, the last payload counts.
"""

from __future__ import annotations

import functools
from typing import Final

CLOSING: Final = b"\x10\x01"
"""The last Frame of a server that closes: field 2 alone. The client half-closes once it has read that."""

MAX_ENVELOPE_BYTES: Final = 16
"""More than the envelope of any payload up to 2**63 bytes."""

MAX_FIELDS: Final = 32
"""Of a Frame, those in groups and their ends as well: each is looked at by the event loop, however small it is."""

KEPT_SIZES: Final = 1024
"""Sizes for which the head of a Frame is kept: a run has messages of few sizes."""

_PAYLOAD_TAG: Final = 0x0A  # field 1, length-delimited
_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = 0, 1, 2, 3, 4, 5


class FrameError(ValueError):
    """Report bytes that are no Frame."""


def encode(payload: bytes) -> bytes:
    """Return the Frame that holds `payload`; an empty payload is left out, as proto3 does."""
    return _head(len(payload)) + payload


def decode(data: bytes) -> bytes:
    """Return the payload of a Frame, empty if it has none.

    Raises:
        FrameError: The bytes are truncated or malformed, or have too many fields.
    """
    head = _head_within(len(data))
    if head and data.startswith(head):
        return data[len(head) :]
    return _decode_fields(data)


@functools.lru_cache(KEPT_SIZES)
def _head(size: int) -> bytes:
    """Return what stands before a payload of `size` bytes."""
    if size == 0:
        return b""
    head = bytearray((_PAYLOAD_TAG,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


@functools.lru_cache(KEPT_SIZES)
def _head_within(size: int) -> bytes:
    """Return the head of a Frame of `size` bytes that holds nothing but a payload; empty if there is none."""
    heads = (_head(size - length) for length in range(2, min(size, MAX_ENVELOPE_BYTES)))
    return next((head for head in heads if len(head) + _size_named(head) == size), b"")


def _size_named(head: bytes) -> int:
    return _varint(head, 1)[0]


def _decode_fields(data: bytes) -> bytes:
    payload = b""
    position, count = 0, 0
    ends: list[int] = []  # the tags that end the groups which have begun
    while position < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise FrameError(f"a frame has more than {MAX_FIELDS} fields")
        tag, position = _varint(data, position)
        if not 8 <= tag < 1 << 32:
            raise FrameError(f"{tag} is not the tag of a field")
        kind = tag & 7
        if kind == _GROUP:
            ends.append(tag - _GROUP + _END_GROUP)
        elif kind == _END_GROUP and ends and tag == ends[-1]:
            ends.pop()
        elif tag == _PAYLOAD_TAG and not ends:
            size, begin = _varint(data, position)
            position = _skip(begin, size, len(data))
            payload = data[begin:position]
        else:
            position = _skip_field(data, kind, position)
    if ends:
        raise FrameError("a group does not end")
    return payload


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at `position` and the position after it."""
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position
        shift += 7
    raise FrameError("a number is truncated or longer than 64 bits")


def _skip(position: int, size: int, end: int) -> int:
    if size > end - position:
        raise FrameError("a field is longer than the frame")
    return position + size


def _skip_field(data: bytes, kind: int, position: int) -> int:
    """Return the position after a field of this kind whose tag was just read."""
    if kind == _VARINT:
        return _varint(data, position)[1]
    if kind == _FIXED64:
        return _skip(position, 8, len(data))
    if kind == _LENGTH:
        size, position = _varint(data, position)
        return _skip(position, size, len(data))
    if kind == _FIXED32:
        return _skip(position, 4, len(data))
    raise FrameError(f"a field of kind {kind} cannot stand here")
