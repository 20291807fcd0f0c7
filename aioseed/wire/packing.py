"""Packed STEPs: observations deflated, for networks that are thinner than what actors see.

A packed STEP is a STEP whose bytes from the first observation column on are a raw DEFLATE stream (RFC 1951); what
stands before is as it was, but for the type. So a learner judges the rows of a message before it inflates anything, and
inflates no more than the STEP has, however much the stream would yield. docs/reference/wire.md has the layout, and
docs/adr/0034-packed-steps.md the reasons.
"""

from __future__ import annotations

import zlib

from aioseed.errors import ProtocolError
from aioseed.types import Payload
from aioseed.wire.columns import HEADER, PROTOCOL_VERSION, STEP_TYPE, StepLayout, claimed_rows

PACKED_STEP_TYPE = 3
DEFLATE = "deflate"
"""Names this way of packing in WELCOME."""

_LEVEL = 3
"""Frames of Atari are a few per cent smaller than at level 1 and cost no more; level 6 takes three times as long."""
_RAW = -zlib.MAX_WBITS
"""No header and no checksum: the transports have theirs, and the size is known."""
_LONGEST_PAUSE = 256


class Packer:
    """Pack the STEPs of one group for as long as it is worth it.

    What does not shrink, as real numbers seldom do, is tried again after ever more messages. Thread: the group's
    worker.

    Args:
        layout: Of the messages.
        worth: Share of its plain size down to which one must come for the next to be packed at once.
    """

    def __init__(self, layout: StepLayout, worth: float) -> None:
        self._layout = layout
        self._worth = worth
        self._pause = 0
        self._left = 0  # messages of it

    def pack(self, payload: bytes, rows: int) -> bytes:
        """Return a STEP of `rows` rows, packed if that is smaller."""
        if self._left:
            self._left -= 1
            return payload
        packed = pack(self._layout, payload, rows)
        self._pause = 0 if len(packed) <= self._worth * len(payload) else min(_LONGEST_PAUSE, max(1, 2 * self._pause))
        self._left = self._pause
        return packed if len(packed) < len(payload) else payload


def pack(layout: StepLayout, payload: bytes, rows: int) -> bytes:
    """Return a STEP of `rows` rows packed, which may be larger; then it must not be sent."""
    begin = layout.observation_at(rows)
    deflated = zlib.compress(memoryview(payload)[begin:], _LEVEL, _RAW)
    return b"".join((_header(PACKED_STEP_TYPE, rows), payload[HEADER.size : begin], deflated))


def packed_rows(layout: StepLayout, payload: Payload, max_rows: int, max_bytes: int) -> int:
    """Check header and size of a packed STEP and return its number of rows. What it inflates to is not looked at.

    Args:
        layout: Of STEPs.
        payload: The message.
        max_rows: Most rows of a STEP.
        max_bytes: Most bytes of the STEP for which it stands.

    Raises:
        ProtocolError: Another type or version, no rows, more than `max_rows`, a message that ends before its
            observations, one that is not smaller than the STEP that it stands for, or such a STEP beyond `max_bytes`.
    """
    rows = claimed_rows(payload, PACKED_STEP_TYPE, max_rows)
    places, total_bytes = layout.place(rows)  # not kept: a claim costs the peer nothing
    begin = places[layout.fixed][0]
    if not begin < len(payload) < total_bytes:
        raise ProtocolError(
            "size_mismatch", f"{rows} rows are packed in {begin + 1} to {total_bytes - 1} bytes, not {len(payload)}"
        )
    if total_bytes > max_bytes:
        raise ProtocolError("size_mismatch", f"{rows} rows are {total_bytes} bytes, and {max_bytes} may be packed")
    return rows


def beginning(layout: StepLayout, payload: Payload, rows: int) -> bytes:
    """Return what a packed STEP, whose header was checked, has before its observations, as the STEP itself has it."""
    return _header(STEP_TYPE, rows) + bytes(payload[HEADER.size : layout.observation_at(rows)])


def unpack(layout: StepLayout, payload: Payload, rows: int) -> bytes:
    """Return the STEP for which a packed one stands, whose header was checked.

    Raises:
        ProtocolError: The stream is broken, or does not yield exactly the observations of `rows` rows and end there.
    """
    begin, total_bytes = layout.observation_at(rows), layout.size_bytes(rows)
    inflater, wanted_bytes = zlib.decompressobj(_RAW), total_bytes - begin
    try:
        # One byte more than there may be, for a zlib that looks for the end of a stream only where there is room.
        observation = inflater.decompress(memoryview(payload)[begin:], wanted_bytes + 1)
    except zlib.error as error:
        raise ProtocolError("malformed", f"the observations of a packed STEP cannot be inflated: {error}") from None
    if len(observation) != wanted_bytes or not inflater.eof or inflater.unused_data:
        raise ProtocolError(
            "size_mismatch", f"a packed STEP of {rows} rows yields {wanted_bytes} bytes of observations and ends there"
        )
    return beginning(layout, payload, rows) + observation


def _header(message_type: int, rows: int) -> bytes:
    return HEADER.pack(message_type, PROTOCOL_VERSION, 0, rows)
