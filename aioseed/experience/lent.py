"""Large rows that stay in the batches in which they came until their unrolls are full.

A picture is thousands of bytes, and copying it costs more than all else that an unroll is about. So the open unroll
holds only where it lies: in the batch that the event loop copied it to, which is lent to the store until no open unroll
needs a row of it, and from which it goes straight to the training batch.

A batch is given back as a whole. One row of a frozen actor would keep it for good; so what is lent is bounded, and when
the bound is reached, what is still needed of the oldest batches is copied to places of its own, the *grid*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from aioseed.experience.copies import Copier
from aioseed.experience.layout import byte_view
from aioseed.types import Loan, UnrollLayout

LENT_ROW_BYTES = 1024
"""Rows from this size on stay where they came: smaller ones are copied for less than the books on them would cost."""
LENT_TIMES = 2
"""Rows that may be lent, in times of those that the open unrolls hold at most."""
MOST_COPIED = 2
"""Batches that are copied to the grid in one call: more than come, so that the bound is reached in small steps."""

_PLACE_BITS = 40
_ROW = (1 << _PLACE_BITS) - 1


class _Run(NamedTuple):
    """Name rows that lie side by side before and after they are copied."""

    t: int
    start: int  # among the unrolls that are copied
    stop: int
    place: int
    row: int  # of the first one, in its place


class LentRows:
    """Know where each large row of the open unrolls lies.

    Where is one number: the *place*, 0 for the grid and else a batch, and the row in it. Thread: inference alone.

    Args:
        grid: For each column of large rows its rows in the grid, as bytes [(T+1) * S, row bytes].
        copier: Shares large copies out.
    """

    def __init__(self, layout: UnrollLayout, slots: int, grid: Sequence[np.ndarray], copier: Copier) -> None:
        self._unroll_steps = layout.unroll_steps
        self._rows = layout.rows
        self._slots = slots
        self._copier = copier
        self._where = np.zeros((layout.rows, slots), np.int64)
        self._flat = self._where.reshape(-1)
        self._numbers = np.arange(slots, dtype=np.int64)
        self._columns: list[Sequence[np.ndarray]] = [grid]  # of each place, as bytes [rows, row bytes]
        self._loans: dict[int, tuple[Loan, np.ndarray]] = {}  # by place, oldest first, with the slots of the rows
        self._needed = np.zeros(1, np.int64)  # rows of each place that an open unroll holds
        self._free: list[int] = []
        self._lent_rows = 0

    def keep(
        self, slots: np.ndarray, cells: slice | np.ndarray, columns: Sequence[np.ndarray], loan: Loan, open_slots: int
    ) -> None:
        """Note the rows of a batch and keep it until none of them is needed.

        Args:
            slots: Of its rows, intp[n].
            cells: Their positions t * S + slot.
            columns: Its columns of large rows, [n] with rows as single elements.
            loan: What it was lent from.
            open_slots: Unrolls that are open now.
        """
        for _ in range(MOST_COPIED):
            if self._loans and self._lent_rows + loan.resident_rows > LENT_TIMES * self._rows * open_slots:
                self._copy_to_grid(next(iter(self._loans)))
        place = self._free.pop() if self._free else self._new_place()
        self._columns[place] = [byte_view(column) for column in columns]
        self._loans[place] = loan, slots
        self._needed[place] = len(slots)
        self._lent_rows += loan.resident_rows
        self._flat[cells] = self._numbers[: len(slots)] + (place << _PLACE_BITS)

    def copy_out(self, slots: slice | np.ndarray, targets: Sequence[np.ndarray]) -> None:
        """Copy all rows of the full unrolls of `slots` to `targets`, for each column bytes [T+1, n, row bytes]."""
        runs = list(_runs(self._where[:, slots]))
        for number, target in enumerate(targets):

            def part(first: int, last: int, number: int = number, target: np.ndarray = target) -> None:
                for t, start, stop, place, row in runs[first:last]:
                    target[t, start:stop] = self._columns[place][number][row : row + stop - start]

            self._copier.run(part, len(runs), target.nbytes)

    def advance(self, slots: slice | np.ndarray) -> None:
        """Begin the next unrolls of `slots`, which hold the last rows of the full ones: no lent row moves."""
        steps, kept = self._unroll_steps, self._rows - self._unroll_steps
        where = self._where[:, slots]
        staying = where[steps:].copy()
        self._give_up(where[:steps])
        moving = staying <= _ROW
        if moving.any():
            origin = staying[moving]
            staying[moving] = to = origin - steps * self._slots
            for grid in self._columns[0]:
                grid[to] = grid[origin]
        self._where[:kept, slots] = staying
        self._where[kept:, slots] = 0

    def drop(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Give up the open unrolls of `slots`, which hold so many `rows` each."""
        where = self._where[:, slots]
        self._give_up(where[np.arange(self._rows)[:, None] < rows])
        self._where[:, slots] = 0

    def _new_place(self) -> int:
        place = len(self._columns)
        self._columns.append(())
        if place == len(self._needed):
            self._needed = np.concatenate((self._needed, np.zeros(max(16, place), np.int64)))
        return place

    def _give_up(self, where: np.ndarray) -> None:
        """Give back every batch of which nothing is needed without these rows."""
        given_up = np.bincount((where >> _PLACE_BITS).reshape(-1), minlength=len(self._needed))
        given_up[0] = 0  # the grid belongs to us
        self._needed -= given_up
        for place in np.flatnonzero((given_up > 0) & (self._needed == 0)).tolist():
            self._give_back(place)

    def _give_back(self, place: int) -> None:
        loan, _ = self._loans.pop(place)
        self._lent_rows -= loan.resident_rows
        self._columns[place] = ()
        self._free.append(place)
        loan.release()

    def _copy_to_grid(self, place: int) -> None:
        _, slots = self._loans[place]
        t, at = np.nonzero(self._where[:, slots] >> _PLACE_BITS == place)
        cells = t * self._slots + slots[at]
        rows = self._flat[cells] & _ROW
        for grid, column in zip(self._columns[0], self._columns[place], strict=True):
            grid[cells] = column[rows]
        self._flat[cells] = cells
        self._give_back(place)


def _runs(where: np.ndarray) -> Iterator[_Run]:
    """Cut where rows lie, int64[T+1, n], into runs."""
    count = where.shape[1]
    begins = np.ones(where.shape, np.bool_)
    begins[:, 1:] = where[:, 1:] != where[:, :-1] + 1
    at = np.flatnonzero(begins)
    t, start = np.divmod(at, count)
    stop = start + np.diff(at, append=where.size)
    first = where.reshape(-1)[at]
    places, rows = first >> _PLACE_BITS, first & _ROW
    return map(_Run, t.tolist(), start.tolist(), stop.tolist(), places.tolist(), rows.tolist())
