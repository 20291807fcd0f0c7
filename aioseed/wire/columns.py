"""STEP and ACTION: a fixed little-endian header and columns of raw arrays.

Everything about a message's bytes follows from the specs agreed in the handshake and the number of rows in the header,
so the exact size is known before the first byte is copied and nothing is parsed per step. The layout, to the byte, is
documented in docs/reference/wire.md::

    0   u8   type (1 STEP, 2 ACTION)
    1   u8   protocol version (1)
    2   u16  reserved, 0
    4   u32  rows n
    8   columns, each beginning at a multiple of 8 bytes from the start of the message, gaps zero

    STEP    epoch u64[n], slot u32[n], sequence u32[n], reward f32[n], metrics f32[n, M], flags u8[n], observation...
    ACTION  epoch u64[n], slot u32[n], sequence u32[n], action

The first three columns are the *identity* of the rows. They stand at the same place in both messages, so that an answer
is the step's own identity bytes and a column of actions.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

import numpy as np

from aioseed.errors import ProtocolError
from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec, spec_leaves
from aioseed.types import Allocate, Payload, StepColumns

STEP_TYPE = 1
ACTION_TYPE = 2
PROTOCOL_VERSION = 1
HEADER = struct.Struct("<BBHI")
MAX_ROWS = 2**20
KEPT_SIZES = 256
"""Row counts for which a layout keeps what it computed; a peer that plays with sizes must not fill our memory."""
KEPT_PLACES = 2048
"""Places in a batch for which a writer keeps its slices, about a kilobyte each; fewer where rows are large, since then
there are many batches."""
LARGE_ROW_BYTES = 1024
COPIED_BYTES = 8192
"""Columns up to this size are cut out of a message as bytes: below it a second copy costs less than a view."""

_UNKNOWN = (0, -1)
_EPOCH = ArraySpec("uint64", ())
_UINT32 = ArraySpec("uint32", ())


def _aligned(offset: int) -> int:
    return (offset + 7) & ~7


class Offsets(NamedTuple):
    """Place the columns of a message of some number of rows."""

    columns: tuple[tuple[int, int], ...]  # (offset, bytes) a column
    total_bytes: int


class ColumnLayout:
    """Know where each column of a message with n rows lies.

    What follows from n is computed once for each n and kept: a run sees few different numbers of rows.
    """

    def __init__(self, message_type: int, columns: tuple[ArraySpec, ...]) -> None:
        self.message_type = message_type
        self.columns = columns
        self.row_bytes = sum(spec.row_bytes for spec in columns)
        self._offsets: dict[int, Offsets] = {}
        self.first_slots: dict[int, int] = {}
        """Offset of the first row's slot, by the size of messages that were checked."""
        self._sound: dict[bytes, tuple[int, int]] = {}  # headers that were checked: rows, message bytes

    def offsets(self, rows: int) -> Offsets:
        """Return the place of every column in a message of `rows` rows."""
        known = self._offsets.get(rows)
        if known is None:
            if len(self._offsets) >= KEPT_SIZES:
                self._offsets.clear()
            known = self._offsets[rows] = self.place(rows)
        return known

    def size_bytes(self, rows: int) -> int:
        """Return the exact size of a message of `rows` rows."""
        return self.offsets(rows).total_bytes

    def rows(self, payload: Payload, max_rows: int = MAX_ROWS) -> int:
        """Check header and size of a message and return its number of rows.

        Raises:
            ProtocolError: Another type or version, no rows, more than `max_rows`, or a size that is not the exact one.
        """
        rows, total_bytes = self._sound.get(bytes(payload[:8]), _UNKNOWN)
        if rows <= max_rows and len(payload) == total_bytes:
            return rows
        return self._check(payload, max_rows)

    def identity_bytes(self, rows: int) -> int:
        """Return the offset just behind the identity columns: an ACTION repeats ``payload[8:here]`` of its STEP."""
        return self.offsets(rows).columns[3][0]

    def place(self, rows: int) -> Offsets:
        """Compute the place of every column in a message of `rows` rows; `offsets` keeps it."""
        offset, places = HEADER.size, []
        for spec in self.columns:
            offset = _aligned(offset)
            places.append((offset, rows * spec.row_bytes))
            offset += rows * spec.row_bytes
        return Offsets(tuple(places), offset)

    def _check(self, payload: Payload, max_rows: int) -> int:
        rows = claimed_rows(payload, self.message_type, max_rows)
        places, expected = self.place(rows)  # not kept: a claim costs the peer nothing
        if len(payload) != expected:
            raise ProtocolError(
                "size_mismatch", f"{rows} rows of the agreed specs are {expected} bytes, the message has {len(payload)}"
            )
        if len(self._sound) >= KEPT_SIZES:
            self._sound.clear()
            self.first_slots.clear()
        self._sound[bytes(payload[:8])] = rows, expected
        self.first_slots[expected] = places[1][0]
        return rows


def claimed_rows(payload: Payload, message_type: int, max_rows: int) -> int:
    """Check the header of a message and return the number of rows that it claims.

    Raises:
        ProtocolError: Another type or version, no rows, or more than `max_rows`.
    """
    if len(payload) < HEADER.size:
        raise ProtocolError("truncated", f"a message of {len(payload)} bytes has no header")
    kind, version, _, rows = HEADER.unpack_from(payload)
    if kind != message_type:
        raise ProtocolError("unexpected_message", f"expected message type {message_type}, got {kind}")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            "version", f"this session speaks version {PROTOCOL_VERSION}, the message is version {version}"
        )
    if not 1 <= rows <= max_rows:
        raise ProtocolError("row_count", f"a message carries 1 to {max_rows} rows, this one claims {rows}")
    return int(rows)


class StepLayout(ColumnLayout):
    """Lay out STEP messages for an observation spec and M metrics."""

    def __init__(self, observation: ObservationSpec, metrics: int) -> None:
        leaves = spec_leaves(observation)
        fixed = (
            _EPOCH,
            _UINT32,
            _UINT32,
            ArraySpec("float32", ()),
            ArraySpec("float32", (metrics,)),
            ArraySpec("uint8", ()),
        )
        super().__init__(STEP_TYPE, fixed + leaves)
        self.leaves = leaves
        self.fixed = len(fixed)
        """Columns before those of the observation."""

    def observation_at(self, rows: int) -> int:
        """Return where the observations begin in a message of `rows` rows."""
        return self.offsets(rows).columns[self.fixed][0]

    def allocate(self, capacity: int, zeros: Allocate = np.zeros) -> StepColumns:
        """Return zeroed columns for `capacity` rows, made by `zeros`."""
        epoch, slot, sequence, reward, metrics, flags, *leaves = (
            zeros((capacity, *spec.shape), spec.numpy_dtype) for spec in self.columns
        )
        return StepColumns(slot, epoch, sequence, flags, reward, metrics, tuple(leaves))


_CHOSEN = "it is the agent's act that chooses"


class ActionLayout(ColumnLayout):
    """Lay out ACTION messages for an action spec."""

    def __init__(self, action: ActionSpec) -> None:
        super().__init__(ACTION_TYPE, (_EPOCH, _UINT32, _UINT32, action.array))
        self.action = action.array
        self.idle_action = action.nearest_to_zero()  # for an environment that nobody answers
        # One unsigned comparison finds negative ones too.
        self._choices = np.array(action.sizes, np.uint32).reshape(action.array.shape) if action.sizes else None

    def encode(self, rows: int, identity: bytes, action: bytes) -> bytes:
        """Return an ACTION from a STEP's identity bytes (``payload[8:identity_bytes(rows)]``) and packed actions."""
        return b"".join((self.header(rows), identity, action))

    def header(self, rows: int) -> bytes:
        """Return the header of an ACTION of `rows` rows."""
        return HEADER.pack(ACTION_TYPE, PROTOCOL_VERSION, 0, rows)

    def decode(self, payload: bytes) -> ActionRows:
        """Return views of the columns of an ACTION.

        Raises:
            ProtocolError: The header or the size is wrong.
        """
        rows = self.rows(payload)
        places = self.offsets(rows).columns
        epoch, slot, sequence, action = (
            np.frombuffer(payload, spec.numpy_dtype, rows * spec.size, place[0]).reshape((rows, *spec.shape))
            for spec, place in zip(self.columns, places, strict=True)
        )
        return ActionRows(slot, epoch, sequence, action)

    def check(self, actions: np.ndarray) -> None:
        """Refuse choices that the space does not have; environments in C++ look up memory by them.

        Real numbers are let pass: environments cut them to their bounds, which an honest learner may exceed. But for
        NaN, for which the environment would be blamed: what it returns then, or that it raises, is no fault of its own.

        Raises:
            ProtocolError: There is one.
        """
        if self._choices is None:
            if np.isnan(actions).any():
                raise ProtocolError("action_rows", f"an ACTION holds a number that is NaN: {_CHOSEN}")
            return
        beyond = actions.view(np.uint32) >= self._choices
        if beyond.any():
            chosen, sizes = actions[beyond][0], np.broadcast_to(self._choices, actions.shape)[beyond]
            raise ProtocolError(
                "action_rows",
                f"an ACTION makes the choice {chosen}, and the action space has 0 to {sizes[0] - 1}: {_CHOSEN}",
            )


class ActionRows(NamedTuple):
    """Show the columns of an ACTION; read-only views of its bytes."""

    slot: np.ndarray  # uint32[n]
    epoch: np.ndarray  # uint64[n]
    sequence: np.ndarray  # uint32[n]
    action: np.ndarray  # [n, *action shape]


class StepMessage:
    """Hold one STEP of a fixed number of rows, with a writable view of each column.

    An actor's group keeps one, lets its environments write into the columns and sends `tobytes()`: one copy.
    """

    def __init__(self, layout: StepLayout, rows: int) -> None:
        if not 1 <= rows <= MAX_ROWS:
            raise ValueError(f"a STEP has 1 to {MAX_ROWS} rows, not {rows}")
        self.layout = layout
        self.rows = rows
        offsets = layout.offsets(rows)
        self._buffer = np.zeros(offsets.total_bytes, np.uint8)
        HEADER.pack_into(self._buffer.data, 0, STEP_TYPE, PROTOCOL_VERSION, 0, rows)
        epoch, slot, sequence, reward, metrics, flags, *leaves = (
            self._buffer[offset : offset + size].view(spec.numpy_dtype).reshape((rows, *spec.shape))
            for spec, (offset, size) in zip(layout.columns, offsets.columns, strict=True)
        )
        self.columns = StepColumns(slot, epoch, sequence, flags, reward, metrics, tuple(leaves))

    def tobytes(self) -> bytes:
        """Return a copy of the message, ready to send."""
        return self._buffer.tobytes()

    def subset(self, keep: np.ndarray) -> bytes:
        """Return the message of only those rows where `keep` (bool[n]) is True.

        Raises:
            ValueError: It is True nowhere.
        """
        part = StepMessage(self.layout, int(keep.sum()))
        for target, source in zip(flat_columns(part.columns), flat_columns(self.columns), strict=True):
            target[...] = source[keep]
        return part.tobytes()


def flat_columns(columns: StepColumns) -> tuple[np.ndarray, ...]:
    """Return the columns in the order in which they travel."""
    return (
        columns.epoch,
        columns.slot,
        columns.sequence,
        columns.reward,
        columns.metrics,
        columns.flags,
        *columns.observation,
    )


def step_views(layout: StepLayout, payload: Payload) -> StepColumns:
    """Return read-only views of the columns of a STEP.

    Raises:
        ProtocolError: The header or the size is wrong.
    """
    return _views(layout, payload, layout.rows(payload), len(layout.columns))


def beginning_views(layout: StepLayout, beginning: bytes, rows: int) -> StepColumns:
    """Return read-only views of the columns before the observations, of which there are none in what is returned."""
    return _views(layout, beginning, rows, layout.fixed)


def _views(layout: StepLayout, payload: Payload, rows: int, count: int) -> StepColumns:
    epoch, slot, sequence, reward, metrics, flags, *leaves = (
        np.frombuffer(payload, spec.numpy_dtype, rows * spec.size, offset).reshape((rows, *spec.shape))
        for spec, (offset, _) in zip(layout.columns[:count], layout.offsets(rows).columns[:count], strict=True)
    )
    return StepColumns(slot, epoch, sequence, flags, reward, metrics, tuple(leaves))


# (all bytes of a batch column, where the rows go in it, where they lie in the message). A plain tuple, since naming its
# fields costs a quarter of the time of a small message.
_Copy: TypeAlias = tuple[memoryview, slice, slice]
_Plan: TypeAlias = tuple[tuple[_Copy, ...], tuple[_Copy, ...]]


class End(NamedTuple):
    """Be where the end of a STEP goes that is not to be copied, in the columns of a batch."""

    begin: int  # offset in the message
    memory: tuple[memoryview, ...]  # for all bytes from there on
    before: tuple[_Copy, ...]

    def write_before(self, payload: bytes) -> None:
        """Copy the columns before it, out of the message up to there."""
        for target, place, source in self.before:
            target[place] = payload[source]


class RowWriter:
    """Copy the columns of STEP messages into the columns of a batch, once, byte for byte.

    Holds one flat byte view a column, so that a message costs one slice assignment a column whatever its rows are. The
    slices of a place are kept: messages of few sizes, one behind the other, go to few places, and making the slices
    costs more than the copy of a small message.

    Raises:
        ValueError: The columns are not C-contiguous arrays of the dtypes and shapes of the layout and of one length.
    """

    def __init__(self, layout: StepLayout, columns: StepColumns) -> None:
        self.layout = layout
        self._targets = tuple(
            (_flat_bytes(column, spec, len(columns.slot)), spec.row_bytes)
            for column, spec in zip(flat_columns(columns), layout.columns, strict=True)
        )
        self._sources: dict[int, tuple[slice, ...]] = {}
        self._ends: dict[tuple[int, int], End | None] = {}
        self._kept_places = KEPT_PLACES if layout.row_bytes < LARGE_ROW_BYTES else KEPT_PLACES // 8
        self._plans: dict[tuple[int, int], _Plan] = {}

    def write(self, payload: Payload, rows: int, start: int) -> None:
        """Copy a checked STEP of `rows` rows to the batch rows from `start`.

        Raises:
            ValueError: The batch has no `rows` rows from there; nothing was written.
        """
        small, large = self._plans.get((rows, start)) or self._plan(rows, start)
        for target, place, source in small:
            target[place] = payload[source]
        if large:
            view = memoryview(payload)
            for target, place, source in large:
                target[place] = view[source]

    def end(self, rows: int, start: int) -> End | None:
        """Return where the large columns of a STEP of `rows` rows begin, and all that follows belongs; None without."""
        if (rows, start) not in self._ends:
            if len(self._ends) >= self._kept_places:
                self._ends.clear()
            self._ends[rows, start] = self._find_end(rows, start)
        return self._ends[rows, start]

    def _find_end(self, rows: int, start: int) -> End | None:
        places, total_bytes = self.layout.offsets(rows)
        first = next((number for number, (_, size) in enumerate(places) if size > COPIED_BYTES), None)
        if first is None:
            return None
        ends = [offset for offset, _ in places[first + 1 :]] + [total_bytes]
        memory: list[memoryview] = []
        for (target, row_bytes), (offset, size), end in zip(self._targets[first:], places[first:], ends, strict=True):
            memory.append(target[start * row_bytes : (start + rows) * row_bytes])
            memory.append(memoryview(bytearray(end - offset - size)))  # zeros, up to where the next column begins
        small, _ = self._plans.get((rows, start)) or self._plan(rows, start)
        before = tuple(copy for copy in small if copy[2].start < places[first][0])
        return End(places[first][0], tuple(piece for piece in memory if len(piece)), before)

    def _plan(self, rows: int, start: int) -> _Plan:
        small: list[_Copy] = []
        large: list[_Copy] = []
        for (target, row_bytes), source in zip(self._targets, self._sources_of(rows), strict=True):
            if row_bytes:  # no metrics: a column of no bytes
                place = slice(start * row_bytes, (start + rows) * row_bytes)
                (small if rows * row_bytes <= COPIED_BYTES else large).append((target, place, source))
        if len(self._plans) >= self._kept_places:
            self._plans.clear()
        self._plans[rows, start] = plan = tuple(small), tuple(large)
        return plan

    def _sources_of(self, rows: int) -> tuple[slice, ...]:
        known = self._sources.get(rows)
        if known is None:
            if len(self._sources) >= KEPT_SIZES:
                self._sources.clear()
            places = self.layout.offsets(rows).columns
            known = self._sources[rows] = tuple(slice(offset, offset + size) for offset, size in places)
        return known


def _flat_bytes(column: np.ndarray, spec: ArraySpec, capacity: int) -> memoryview:
    # reshape would silently copy a column that is not contiguous, and what is written would be lost.
    if not column.flags.c_contiguous or column.dtype != spec.numpy_dtype or column.shape != (capacity, *spec.shape):
        raise ValueError(f"a column must be contiguous {spec.dtype}{(capacity, *spec.shape)}, not {column.dtype}")
    return column.reshape(-1).view(np.uint8).data
