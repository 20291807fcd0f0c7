"""The open unroll of every slot: rows go in as they arrive, full unrolls come out.

Time-major columns [T+1, S, ...] for all slots; S counts one scratch slot, to which padded rows point and which never
has an unroll. Pages are touched as slots come into use, and slots are leased lowest first, so memory follows the number
of environments, not `serving.max_environments`.

A row goes to the flat position t * S + slot of every column, one assignment a column with rows as single elements
(`row_view`); large rows stay where they came (`LentRows`). Where all rows belong to neighbouring slots at the same step
of their unrolls these positions are a slice, which NumPy copies faster. A batch of a few rows costs what its NumPy
calls cost, about a microsecond each: hence flat positions are what is kept, and what the next row must be is compared
as bytes.

An unroll has L + overlap + 1 rows, and its last overlap + 1 rows begin the next. So before one unroll is full, up to
``1 + overlap // L`` later ones have begun: a row is row 0 of an unroll where its index in the open one is a multiple of
L.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from aioseed.errors import AioseedError
from aioseed.experience.copies import Copier
from aioseed.experience.layout import StepForms, UnrollBuffer, allocate_columns, byte_view, unroll_grids
from aioseed.experience.lent import LENT_ROW_BYTES, LentRows
from aioseed.experience.states import StateRing
from aioseed.types import FIRST, ActColumns, BeginsState, Loan, StepColumns, UnrollIdentity, UnrollLayout

_ONE_NUMBER = np.array(1, np.uint32)  # to NumPy, arrays without axes are cheaper than numbers, which it makes some of
_NO_EPOCH = np.uint64(2**64 - 1)
"""Of a slot without an open unroll: no row has it, so none follows."""

Index: TypeAlias = slice | np.ndarray
"""Slots: a slice when they are neighbours in ascending order, which NumPy serves faster."""


class FullUnrolls(NamedTuple):
    """Name the unrolls that one batch of rows made full."""

    where: Index
    slots: np.ndarray  # intp[k]
    identity: UnrollIdentity  # columns [k]
    states: list[np.ndarray]  # that entered row 0, leaves as rows [k]


class UnrollStore:
    """Collect rows into one open unroll a slot. Thread: the inference thread alone."""

    def __init__(self, layout: UnrollLayout, max_environments: int, copier: Copier | None = None) -> None:
        slots = max_environments + 1
        self._layout = layout
        self._slots = slots
        grids = unroll_grids(allocate_columns(layout, slots, 0))
        large = [grid.itemsize >= LENT_ROW_BYTES for grid in grids]
        self._small = tuple(place for place, is_large in enumerate(large) if not is_large)
        self._large = tuple(place for place, is_large in enumerate(large) if is_large)
        self._grids = tuple(grids[place] for place in self._small)
        self._flat = [grid.reshape(-1) for grid in self._grids]
        self._lent: LentRows | None = None
        if self._large:
            beside = [byte_view(grids[place].reshape(-1)) for place in self._large]
            self._lent = LentRows(layout, slots, beside, copier or Copier())
        self._flags = self._grids[0]
        self._forms = StepForms.of(layout)
        self._states = StateRing(layout.state, slots, 2 + layout.overlap_steps // layout.unroll_steps)
        self._begins_at = np.arange(layout.rows + 1) % layout.unroll_steps == 0
        self._numbers = np.arange(slots, dtype=np.intp)
        self._step = np.array(slots, np.intp)  # from a row's position to that of its slot's next
        self._last = np.array((layout.rows - 1) * slots, np.intp)  # positions from here on are of last rows
        self._at = self._numbers.copy()  # position of the row that comes next; below S: no open unroll
        self._own_from = np.ones(slots, np.int32)  # transitions of rows before this one belong to an earlier unroll
        self._firsts = np.zeros(slots, np.int32)  # rows from that one on which begin an episode: no transitions
        self._epoch = np.full(slots, _NO_EPOCH)  # of the open unroll
        self._last_epoch = np.zeros(slots, np.uint64)  # of the open unroll, else of the last one
        self._has_epoch = np.zeros(slots, np.bool_)
        self._next_sequence = np.zeros(slots, np.uint32)
        self._row_of = np.zeros(slots, np.intp)  # scratch of `_follow`
        self._opened = 0  # slots with an open unroll

    def append(
        self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan
    ) -> tuple[np.ndarray, int]:
        """Append the first `count` rows.

        Each slot with a full unroll must go through `begin_next` before its next row comes. Unless all rows are sound
        none is written. `loan` is released when the columns are needed no more.

        Returns:
            The slots whose unrolls are now full, in the order of the rows, and the number of transitions appended.

        Raises:
            AioseedError: A row is not the successor of its slot's last row; serving should have refused it.
        """
        slots = steps.slot[:count].astype(np.intp)
        if not count:
            loan.release()
            return slots, 0
        index = self._index(slots)
        try:
            at = self._at[index]
        except IndexError:
            raise self._beyond(slots) from None
        if not self._follow(index, steps, count):
            self._open(slots, at, steps, count)
        if self._states:
            self._keep_states(slots, at // self._step, begins_state)
        cells = self._cells(at, count) if isinstance(index, slice) else at
        columns = self._forms.rows(steps, acts, count)
        if self._lent is None:
            for grid, column in zip(self._flat, columns, strict=False):
                grid[cells] = column
        else:
            for grid, place in zip(self._flat[:-1], self._small, strict=False):
                grid[cells] = columns[place]
            self._lent.keep(slots, cells, [columns[place] for place in self._large], loan, self._opened)
        self._flat[-1][cells] = _in_32_bits(acts.policy_version)
        firsts = steps.flags[:count] & FIRST
        transitions = count - int(np.count_nonzero(firsts))
        if transitions < count:
            # Row 0 of a lease is before those that are counted.
            self._firsts[slots[(firsts != 0) & (at >= self._slots)]] += 1
        ended = at >= self._last
        self._at[index] = at + self._step
        self._next_sequence[index] = steps.sequence[:count] + _ONE_NUMBER
        if self._lent is None:
            loan.release()
        return slots[ended] if np.count_nonzero(ended) else slots[:0], transitions

    def nearly_full(self, slots: np.ndarray) -> int:
        """Return how many of `slots` one more row makes full."""
        return int(np.count_nonzero(self._at[slots] >= self._last))

    def full(self, slots: np.ndarray) -> FullUnrolls:
        """Return what names the full unrolls of `slots` (not empty)."""
        identity = UnrollIdentity(
            slot=slots.astype(np.uint32),
            epoch=self._last_epoch[slots],
            sequence=self._next_sequence[slots] - np.uint32(self._layout.rows),
            transitions=self._layout.rows - self._own_from[slots] - self._firsts[slots],
        )
        return FullUnrolls(self._index(slots), slots, identity, self._states.get(slots))

    def copy_out(self, full: FullUnrolls, done: int, count: int, target: UnrollBuffer, position: int) -> None:
        """Copy `count` of the full unrolls, leaving out the first `done`, to `target` from `position` on."""
        source, places = slice(done, done + count), slice(position, position + count)
        targets = [target.grids[place][:, places] for place in self._small]
        if isinstance(full.where, slice):
            where: Index = slice(full.where.start + done, full.where.start + done + count)
            for grid, copies in zip(self._grids, targets, strict=True):
                copies[...] = grid[:, where]
        else:
            where = full.slots[source]
            for grid, copies in zip(self._grids, targets, strict=True):
                copies[...] = grid.take(where, axis=1)
        if self._lent is not None:
            self._lent.copy_out(where, [byte_view(target.grids[place])[:, places] for place in self._large])
        for column, copies in zip(full.identity, target.batch.identity, strict=True):
            copies[places] = column[source]
        for state, copies in zip(full.states, target.states, strict=True):
            copies[places] = state[source]

    def begin_next(self, full: FullUnrolls) -> None:
        """Begin the next unrolls with the last rows of the full ones, which are gone then."""
        layout = self._layout
        for grid in self._grids:
            grid[: layout.overlap_steps + 1, full.where] = grid[layout.unroll_steps :, full.where]
        if self._lent is not None:
            self._lent.advance(full.where)
        self._at[full.where] = self._numbers[full.where] + (layout.overlap_steps + 1) * self._slots
        self._own_from[full.where] = layout.overlap_steps + 1
        self._firsts[full.where] = 0
        self._states.advance(full.slots)

    def drop(self, slots: np.ndarray) -> int:
        """Forget the open unrolls of `slots` and return how many transitions they held.

        The next row of each must be the first of a newer epoch.
        """
        slots = np.unique(slots).astype(np.intp)
        held = self._at[slots] // self._step
        rows = np.maximum(held - self._own_from[slots], 0)
        dropped = int((rows - self._firsts[slots]).sum())
        if self._lent is not None:
            self._lent.drop(slots, held)
        self._opened -= int(np.count_nonzero(held))
        self._at[slots] = slots
        self._epoch[slots] = _NO_EPOCH
        self._next_sequence[slots] = 0
        self._own_from[slots] = 1
        self._firsts[slots] = 0
        return dropped

    def recount(self) -> int:
        """Return how many transitions open unrolls hold, counted row by row (for the audit of the ledger)."""
        slots, row = self.open_slots, np.arange(self._layout.rows)[:, None]
        own = (row >= self._own_from[slots]) & (row < self._at[slots] // self._step)
        return int((own & ((self._flags[:, slots] & FIRST) == 0)).sum())

    @property
    def open_slots(self) -> np.ndarray:
        """Return the slots that have an open unroll, ascending."""
        return np.flatnonzero(self._at >= self._slots)

    def _index(self, slots: np.ndarray) -> Index:
        first, last = int(slots[0]), int(slots[-1])
        if last - first != len(slots) - 1 or slots.tobytes() != self._numbers[first : last + 1].tobytes():
            return slots
        return slice(first, last + 1)

    def _cells(self, at: np.ndarray, count: int) -> Index:
        """Return positions as a slice where they are neighbours."""
        first = int(at[0])
        if int(at[-1]) - first != count - 1 or (at - first).tobytes() != self._numbers[:count].tobytes():
            return at
        return slice(first, first + count)

    def _follow(self, index: Index, steps: StepColumns, count: int) -> bool:
        """Say whether every row is the next of its slot's open unroll, each slot there once."""
        if not isinstance(index, slice):
            self._row_of[index] = self._numbers[:count]
            if self._row_of[index].tobytes() != self._numbers[:count].tobytes():
                return False
        return (
            self._epoch[index].tobytes() == steps.epoch[:count].tobytes()
            and self._next_sequence[index].tobytes() == steps.sequence[:count].tobytes()
        )

    def _open(self, slots: np.ndarray, at: np.ndarray, steps: StepColumns, count: int) -> None:
        """Check rows of which some begin the first unroll of a lease, and note the epochs of these.

        Raises:
            AioseedError: A row is not the successor of its slot's last row.
        """
        if (slots >= self._slots - 1).any():
            raise self._beyond(slots)
        epoch = steps.epoch[:count]
        newer = (self._last_epoch[slots] < epoch) | ~self._has_epoch[slots]
        begins = (at < self._slots) & newer & ((steps.flags[:count] & FIRST) != 0) & (epoch != _NO_EPOCH)
        sound = begins | (self._epoch[slots] == epoch)
        sound &= self._next_sequence[slots] == steps.sequence[:count]
        # Equal rows of one slot would pass above: both are last + 1.
        self._row_of[slots] = self._numbers[:count]
        sound &= self._row_of[slots] == self._numbers[:count]
        if not sound.all():
            row = int(np.flatnonzero(~sound)[0])
            raise AioseedError(
                f"row {row} (slot {steps.slot[row]}, epoch {epoch[row]}, sequence {steps.sequence[row]}) "
                "does not follow the last row of its slot"
            )
        opened = slots[begins]
        self._epoch[opened] = self._last_epoch[opened] = epoch[begins]
        self._has_epoch[opened] = True
        self._opened += opened.size

    def _beyond(self, slots: np.ndarray) -> AioseedError:
        return AioseedError(f"slot {slots.max()} is beyond the {self._slots - 1} environments of this run")

    def _keep_states(self, slots: np.ndarray, t: np.ndarray, begins_state: BeginsState) -> None:
        rows = np.flatnonzero(self._begins_at[t])
        if rows.size:
            self._states.put(slots[rows], t[rows] // self._layout.unroll_steps, begins_state(rows))


def _in_32_bits(version: int) -> int:
    """Return what is left of a number in the int32 of a column; a run of small updates exceeds it within weeks."""
    return (version + 2**31) % 2**32 - 2**31
