"""The slot table: who holds which environment slot, under which epoch, and where each stands.

One array a property, one element a slot, so that a batch of any size is checked in a handful of operations. Slots are
leased lowest first, those of the role evaluate from the top, so that tables and unrolls stay dense.

Thread: the event loop alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aioseed.types import FIRST, StepColumns
from aioseed.wire.messages import ErrorCode

NOBODY = -1
_NEVER = -1
"""Sequence of a slot from which nothing has come in this epoch: the next number is 0."""
_WORD = 2**32 - 1
"""Sequence numbers have 32 bits; after this one comes 0, which a fast environment reaches within weeks."""


class Rows(NamedTuple):
    """Sort the rows of one STEP: indices of rows to apply, indices of repeats, and refused rows with their codes."""

    apply: np.ndarray
    repeat: np.ndarray
    refused: tuple[tuple[int, ErrorCode], ...]


class SlotTable:
    """Hold the leases of a run.

    Args:
        capacity: Number of slots.
        generation: Number of this start of the run; the upper 32 bits of every epoch.
    """

    def __init__(self, capacity: int, generation: int) -> None:
        self.capacity = capacity
        self.generation = generation
        self.owner = np.full(capacity, NOBODY, np.int64)
        self.epoch = np.full(capacity, np.uint64(generation) << np.uint64(32), np.uint64)
        self.last_sequence = np.full(capacity, _NEVER, np.int64)
        self.in_batch = np.zeros(capacity, bool)  # a row waits in the open batch or in one under way
        self.late = np.zeros(capacity, bool)  # missed a deadline close; not expected until it sends
        self.answered_at_s = np.zeros(capacity, np.float64)
        self.step_deadline_s = np.full(capacity, np.inf)
        self.leased = 0
        self.late_count = 0
        self.changes = 0  # leases that ended so far, in bunches

    def lease(
        self, owner: int, count: int, now_s: float, *, evaluation: bool = False, first_slot: int | None = None
    ) -> np.ndarray | None:
        """Lease `count` slots under new epochs and return them ascending, or None when there are not so many.

        Args:
            owner: Number of the session.
            first_slot: Lease exactly ``first_slot .. first_slot + count - 1`` (lockstep), else the best free ones.
        """
        free = np.flatnonzero(self.owner == NOBODY)
        if first_slot is not None:
            wanted = np.arange(first_slot, first_slot + count)
            slots = wanted if np.isin(wanted, free).all() else wanted[:0]
        else:
            slots = free[-count:] if evaluation else free[:count]
        if slots.size < count:
            return None
        self._grant(slots, owner, now_s)
        return slots.astype(np.uint32)

    def renew(self, slots: np.ndarray, owner: int, now_s: float) -> None:
        """Lease free `slots` again to `owner` under new epochs."""
        assert (self.owner[slots] == NOBODY).all(), "a slot is leased once"
        self._grant(slots, owner, now_s)

    def transfer(self, slots: np.ndarray, owner: int, now_s: float) -> None:
        """Hand leased `slots` to another session as they stand: epochs and sequence numbers go on."""
        assert (self.owner[slots] != NOBODY).all(), "only a lease can be handed on"
        self.owner[slots] = owner
        self.answered_at_s[slots] = now_s

    def release(self, slots: np.ndarray) -> None:
        """End the leases of `slots`; what comes under their epochs from now on is refused."""
        held = slots[self.owner[slots] != NOBODY]
        self.changes += 1
        self.owner[held] = NOBODY
        self.leased -= held.size
        self.late_count -= int(np.count_nonzero(self.late[held]))
        self.late[held] = False

    def sort(self, owner: int, rows: StepColumns) -> Rows:
        """Sort the rows of a STEP of session `owner` into those to apply, repeats and refused ones.

        Nothing changes. A row applies when it is its slot's last sequence number + 1 (in 32 bits), repeats when it is
        the last one, and is refused otherwise.
        """
        slots = rows.slot.astype(np.int64)
        codes: dict[int, ErrorCode] = {}

        def refuse(where: np.ndarray, code: ErrorCode) -> None:
            for row in np.flatnonzero(where).tolist():
                codes.setdefault(row, code)

        unknown = slots >= self.capacity
        known = np.where(unknown, 0, slots)
        epoch = self.epoch[known]
        refuse(~unknown & (rows.epoch < epoch), ErrorCode.STALE_EPOCH)
        refuse(unknown | (self.owner[known] != owner) | (rows.epoch != epoch), ErrorCode.NOT_LEASED)
        first_seen = np.zeros(slots.size, bool)
        first_seen[np.unique(slots, return_index=True)[1]] = True
        refuse(~first_seen, ErrorCode.DUPLICATE_SLOT)
        last = self.last_sequence[known]
        sequence = rows.sequence.astype(np.int64)
        repeats = sequence == last
        following = sequence == (last + 1) & _WORD
        refuse(~(repeats | following), ErrorCode.SEQUENCE_GAP)
        refuse(following & self.in_batch[known], ErrorCode.UNANSWERED)
        is_first = (rows.flags & FIRST) != 0
        refuse(following & (last == _NEVER) & ~is_first, ErrorCode.NOT_FIRST)
        refused = tuple(sorted(codes.items()))
        return Rows(np.flatnonzero(following), np.flatnonzero(repeats), refused)

    def enter(self, slots: np.ndarray, sequence: np.ndarray) -> None:
        """Note that rows were taken into the open batch."""
        slots = slots.astype(np.intp, copy=False)  # once: NumPy looks up by any other dtype three times as slowly
        self.last_sequence[slots] = sequence.astype(np.int64)  # else NumPy takes a buffer to cast what it scatters
        self.in_batch[slots] = True
        if self.late_count:
            self.late_count -= int(np.count_nonzero(self.late[slots]))
            self.late[slots] = False

    def answer(self, slots: np.ndarray, epochs: np.ndarray, changes: int, now_s: float) -> None:
        """Note that the rows of a batch were answered; slots leased anew meanwhile stay as they are.

        Args:
            changes: What `changes` was when the batch was closed.
        """
        if changes != self.changes:
            slots = slots[self.epoch[slots] == epochs]
        self.in_batch[slots] = False
        self.answered_at_s[slots] = now_s

    def mark_late(self) -> int:
        """Mark every leased slot that waits nowhere as late and return how many became so."""
        newly = (self.owner != NOBODY) & ~self.in_batch & ~self.late
        count = int(np.count_nonzero(newly))
        self.late |= newly
        self.late_count += count
        return count

    def mark_absent(self, slots: np.ndarray) -> np.ndarray:
        """Mark those of `slots` that are leased and wait nowhere as late, and return those that still wait."""
        slots = slots[self.owner[slots] != NOBODY]
        waits = self.in_batch[slots]
        newly = slots[~waits & ~self.late[slots]]
        self.late[newly] = True
        self.late_count += newly.size
        still: np.ndarray = slots[waits]
        return still

    def overdue(self, now_s: float) -> np.ndarray:
        """Return the slots whose environment has taken longer than its step deadline."""
        waiting_for = (self.owner != NOBODY) & ~self.in_batch
        return np.flatnonzero(waiting_for & (now_s - self.answered_at_s > self.step_deadline_s))

    def _grant(self, slots: np.ndarray, owner: int, now_s: float) -> None:
        self.owner[slots] = owner
        self.epoch[slots] += np.uint64(1)
        self.last_sequence[slots] = _NEVER
        self.in_batch[slots] = False
        self.answered_at_s[slots] = now_s
        self.leased += slots.size
