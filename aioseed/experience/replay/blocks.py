"""Where unrolls lie in replay: immutable blocks of one large allocation.

An unroll's name is its insertion number; numbers rise by 1 and are never used again. A block holds `block_unrolls`
neighbours. What is written is never changed while it is held, and blocks go as wholes, oldest first: so somebody else
may read unrolls (a checkpoint) without a lock, as long as their blocks are kept from being used again.

An unroll is one contiguous record of all its columns: to draw it at random costs one jump through memory, and not one
for each column or step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aioseed.experience.copies import Copier
from aioseed.experience.layout import UnrollBuffer, byte_view
from aioseed.specs import ArraySpec
from aioseed.types import UnrollIdentity, UnrollLayout

_CACHED_BYTES = 16 * 2**10
"""Records up to this size are fetched as a whole before they are taken apart; larger ones would not stay in a cache."""
BLOCKS = 32
"""Into how many pieces the capacity is cut: the oldest of them goes as a whole."""


class Blocks:
    """Keep the columns of at most `capacity` unrolls. Thread: the training thread alone, but for what `read` gives."""

    def __init__(self, layout: UnrollLayout, capacity: int, spare: int = 0, copier: Copier | None = None) -> None:
        """Reserve memory; untouched pages cost nothing.

        Args:
            layout: Shape of the unrolls.
            capacity: Most unrolls that are held.
            spare: Blocks beyond those, for as long as somebody still reads blocks that have gone.
            copier: Shares large copies out.
        """
        self._copier = copier or Copier()
        self.block_unrolls = max(1, capacity // BLOCKS)
        self.blocks = capacity // self.block_unrolls
        self.places = self.blocks * self.block_unrolls
        self.spare_unrolls = spare * self.block_unrolls
        physical = self.blocks + spare
        self._record = _record(layout)
        self._held = _Records.of(np.zeros(physical * self.block_unrolls, self._record))
        self._fetched = _Records.of(np.zeros(0, self._record))
        self._free = deque(range(physical))
        self._rows = np.zeros(self.places, np.intp)  # number modulo places -> where it lies in the allocation
        self.oldest = 0  # lowest number held
        self.next = 0  # number of the next unroll

    @property
    def size(self) -> int:
        """Return how many unrolls are held."""
        return self.next - self.oldest

    def room(self) -> int:
        """Return how many unrolls may be written before a block must be opened; 0 when it is time to."""
        return -self.next % self.block_unrolls

    def must_evict(self) -> bool:
        """Return True if the oldest block must go before one can be opened."""
        return self.size > self.places - self.block_unrolls

    def evict(self) -> tuple[range, int]:
        """Forget the oldest block; return the numbers that it held and the physical block, which the caller frees."""
        gone = range(self.oldest, (self.oldest // self.block_unrolls + 1) * self.block_unrolls)
        self.oldest = gone.stop
        return gone, self.physical(gone.start)

    def free(self, physical: int) -> None:
        """Let the memory of a block that has gone be used again."""
        self._free.append(physical)

    @property
    def can_open(self) -> bool:
        """Return True if there is memory for a new block."""
        return bool(self._free)

    def open(self) -> None:
        """Begin a new block."""
        place, start = self.next % self.places, self._free.popleft() * self.block_unrolls
        self._rows[place : place + self.block_unrolls] = np.arange(start, start + self.block_unrolls)

    def write(self, source: UnrollBuffer, start: int, count: int) -> np.ndarray:
        """Copy `count` unrolls of `source` from `start` on into the open block and return their numbers."""
        numbers = np.arange(self.next, self.next + count)
        begin = self._row(self.next)
        target = slice(begin, begin + count)
        chosen = slice(start, start + count)
        if self._record.itemsize <= _CACHED_BYTES:
            for column, grid in zip(self._held.rows, source.grids, strict=True):
                column[target] = grid[:, chosen].T
        else:
            self._write_large(source, start, begin, count)
        for column, states in zip(self._held.states, source.batch.columns.initial_state, strict=True):
            column[target] = states[chosen]
        for column, values in zip(self._held.identity, source.batch.identity, strict=True):
            column[target] = values[chosen]
        self.next += count
        return numbers

    def copy_out(self, numbers: np.ndarray, target: UnrollBuffer) -> None:
        """Copy the unrolls `numbers`, as many as `target` has room for, in this order."""
        rows = self.rows(numbers)
        chosen: np.ndarray | slice = rows
        if self._record.itemsize <= _CACHED_BYTES:
            records, chosen = self._fetch(rows), slice(None)
            for column, grid in zip(records.rows, target.grids, strict=True):
                grid[...] = column.T
        else:
            records = self._held
            self._copy_large(rows.tolist(), target)
        for column, states in zip(records.states, target.batch.columns.initial_state, strict=True):
            states[...] = column[chosen]
        for column, values in zip(records.identity, target.batch.identity, strict=True):
            values[...] = column[chosen]

    def _copy_large(self, rows: list[int], target: UnrollBuffer) -> None:
        held, grids = [byte_view(column) for column in self._held.rows], [byte_view(grid) for grid in target.grids]

        def part(start: int, stop: int) -> None:  # one pass over large memory instead of two
            for column, grid in zip(held, grids, strict=True):
                for place in range(start, stop):
                    grid[:, place] = column[rows[place]]

        self._copier.run(part, len(rows), len(rows) * self._record.itemsize)

    def _write_large(self, source: UnrollBuffer, start: int, begin: int, count: int) -> None:
        held, grids = [byte_view(column) for column in self._held.rows], [byte_view(grid) for grid in source.grids]

        def part(first: int, last: int) -> None:
            for column, grid in zip(held, grids, strict=True):
                column[begin + first : begin + last] = grid[:, start + first : start + last].swapaxes(0, 1)

        self._copier.run(part, count, count * self._record.itemsize)

    def _fetch(self, rows: np.ndarray) -> _Records:
        """Return copies of the records at `rows`, in memory that is used again."""
        if len(self._fetched.all) != len(rows):
            self._fetched = _Records.of(np.zeros(len(rows), self._record))
        # Any mode but "raise" writes into `out` itself instead of a copy of it.
        self._held.all.take(rows, out=self._fetched.all, mode="clip")
        return self._fetched

    def transitions(self, numbers: np.ndarray) -> int:
        """Return how many environment transitions belong to the unrolls `numbers`."""
        return int(self._held.identity.transitions[self.rows(numbers)].sum())

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return where unrolls lie in the allocation."""
        rows: np.ndarray = self._rows[numbers % self.places]
        return rows

    def physical(self, number: int) -> int:
        """Return the physical block in which unroll `number` lies."""
        return self._row(number) // self.block_unrolls

    def _row(self, number: int) -> int:
        return int(self._rows[number % self.places])

    def arrays(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Return views of `count` unrolls of one block from number `first` on, by name; nobody may write to them."""
        start = self._row(first)
        chosen = slice(start, start + count)
        return {name: byte_view(column[chosen]) for name, column in self._held.named().items()}

    def begin_at(self, number: int) -> None:
        """Let the first unroll be number `number`, the first of a block (replay that goes on from a checkpoint)."""
        self.oldest = self.next = number

    def restore(self, count: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the next `count` unrolls, none beyond the open block.

        Args:
            count: As given to `arrays`.
            arrays: What `arrays` returned.

        Raises:
            ValueError: They are of another form.
        """
        if not self.room():
            self.open()
        mine = self.arrays(self.next, count)
        for name, array in mine.items():
            its = arrays.get(name)
            if its is None or (its.dtype, its.shape) != (array.dtype, array.shape):
                raise ValueError(f"{name} has another form")
        for name, array in mine.items():
            array[...] = arrays[name]
        self.next += count


class _Records(NamedTuple):
    """Hold records and views of their columns."""

    all: np.ndarray  # record[N]
    rows: tuple[np.ndarray, ...]  # [N, T+1], elements are whole rows, in the order of `unroll_grids`
    states: tuple[np.ndarray, ...]  # [N, ...]
    identity: UnrollIdentity  # [N] each

    @classmethod
    def of(cls, records: np.ndarray) -> _Records:
        """Return `records` with the views."""

        def columns(kind: str) -> tuple[np.ndarray, ...]:
            return tuple(records[name] for name in records.dtype.names or () if name.startswith(f"{kind}/"))

        return cls(records, columns("rows"), columns("state"), UnrollIdentity(*columns("identity")))

    def named(self) -> dict[str, np.ndarray]:
        """Return the columns by name."""
        return {name: self.all[name] for name in self.all.dtype.names or ()}


def _record(layout: UnrollLayout) -> np.dtype[np.void]:
    """Return what an unroll is in memory: ``rows/i`` as in `unroll_grids`, ``state/i``, ``identity/i``."""
    specs = (
        ArraySpec("uint8", ()),
        ArraySpec("float32", ()),
        layout.action,
        layout.action,
        *layout.observation,
        *layout.extras,
        ArraySpec("int32", ()),
    )
    fields: list[tuple[str, np.dtype[np.generic], tuple[int, ...]]] = []
    for i, spec in enumerate(specs):
        row = np.dtype((np.void, spec.row_bytes)) if spec.shape else spec.numpy_dtype
        fields.append((f"rows/{i}", row, (layout.rows,)))
    fields += [(f"state/{i}", spec.numpy_dtype, spec.shape) for i, spec in enumerate(layout.state)]
    fields += [
        (f"identity/{i}", np.dtype(dtype), ()) for i, dtype in enumerate((np.uint32, np.uint64, np.uint32, np.int32))
    ]
    return np.dtype(fields, align=True)
