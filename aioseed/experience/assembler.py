"""The room's two doors: `UnrollSink` towards inference and `UnrollSource` towards training.

Joins store and queue, and keeps the ledger: a transition is OPEN from `append` on, QUEUED once its unroll is copied
out, TRAINING once `take` has handed its batch over, and out of the books with `settle`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from aioseed.errors import AioseedError
from aioseed.experience.copies import Copier
from aioseed.experience.layout import UnrollBuffer, aligned_zeros
from aioseed.experience.queue import QueueStatistics, UnrollQueue
from aioseed.experience.store import UnrollStore
from aioseed.telemetry.ledger import Account, Ledger, Reason
from aioseed.types import (
    FIRST,
    ActColumns,
    Allocate,
    BeginsState,
    CopiedRows,
    Loan,
    Settled,
    StepColumns,
    UnrollBatch,
    UnrollColumns,
    UnrollLayout,
)


class UnrollAssembler:
    """Turn rows into batches of unrolls (implements `UnrollSink` and `UnrollSource`).

    Thread: inference calls `append`, `has_room`, `begin` and `drop`; training calls `take` and `give_back`; any calls
    `stop`, `statistics` and the properties; `close` and `audit` are for when both threads rest.
    """

    def __init__(
        self,
        layout: UnrollLayout,
        *,
        max_environments: int,
        batch_unrolls: int,
        queue_batches: int,
        ledger: Ledger,
        priorities: Callable[[UnrollColumns], np.ndarray] | None = None,
        copier: Copier | None = None,
        zeros: Allocate = aligned_zeros,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Allocate everything.

        Args:
            layout: Shape of the unrolls.
            max_environments: Slots are 0 to this, exclusive.
            batch_unrolls: Unrolls that one `take` hands over: those of all updates of one compiled call.
            queue_batches: Full batches that may wait.
            ledger: Where transitions are accounted for.
            priorities: Called on the inference thread with each full batch; its float32[B] goes with the batch.
            copier: Shares large copies out.
            zeros: Makes the columns of batches.
            clock: Measures how long inference is held up, in seconds.
        """
        self._store = UnrollStore(layout, max_environments, copier)
        self._queue = UnrollQueue(layout, batch_unrolls, queue_batches, zeros=zeros, clock=clock)
        self._ledger = ledger
        self._priorities = priorities
        self._batch_unrolls = batch_unrolls
        self._filling: UnrollBuffer | None = None
        self._filled = 0
        self._evaluation = np.zeros(max_environments, np.bool_)
        self._evaluations = 0

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan) -> None:
        """Append the first `count` rows to the unrolls of their slots; rows of evaluation slots are only counted.

        Blocks while no buffer is free: that delays actions. After `stop` it never blocks, and unrolls that become full
        are dropped{shutdown}.

        Args:
            steps: Rows as they arrived, each slot at most once.
            acts: What inference adds to the same rows.
            count: Rows in use.
            begins_state: Called at most once, before anything is written, with the rows that begin an unroll; not
                called if the layout has no state.
            loan: Released when the columns of `steps` are needed no more: large observations stay there until their
                unroll is full.

        Raises:
            AioseedError: A row is not the successor of its slot's last row; nothing is applied.
        """
        evaluated = 0
        if self._evaluations:
            evaluation = self._evaluation[steps.slot[:count]]
            rows = np.flatnonzero(~evaluation)
            evaluated = int(np.count_nonzero(evaluation & ((steps.flags[:count] & FIRST) == 0)))
            if rows.size < count:
                steps, acts, begins_state = _select(steps, acts, rows, begins_state)
                loan.release()
                count, loan = rows.size, CopiedRows(rows.size)
        full, transitions = self._store.append(steps, acts, count, begins_state, loan)
        self._ledger.accept(transitions, evaluated)
        if full.size:
            self._queue_full(full)

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        """Note that `slots` are leased anew; their rows follow. Rows of evaluation slots never enter an unroll.

        Raises:
            AioseedError: One of them has an open unroll: `drop` comes before.
        """
        if np.isin(slots, self._store.open_slots).any():
            raise AioseedError("a slot with an open unroll cannot be leased anew")
        self._evaluation[slots] = evaluation
        self._evaluations = int(np.count_nonzero(self._evaluation))

    def drop(self, slots: np.ndarray, reason: str, arrived: int = 0) -> None:
        """Drop the open unrolls of `slots`: their lease has ended. The next row of each is the first of a newer epoch.

        `reason` is a word of `telemetry.ledger.Reason`. Slots without an open unroll are fine. `arrived` transitions
        came just now and are in no unroll; they are accepted and dropped with the others.
        """
        self._ledger.accept(arrived)
        self._ledger.drop(self._store.drop(slots) + arrived, Reason(reason), Account.OPEN)

    def has_room(self, slots: np.ndarray) -> bool:
        """Say whether `append` of one row for each of `slots` would neither block nor compute priorities.

        Thread: that of `append`, which alone uses buffers up.
        """
        left, unrolls = self._batch_unrolls - self._filled, self._batch_unrolls
        places = left + (self._queue.free - (self._filling is None)) * unrolls
        if self._priorities is not None:
            places = min(places, left - 1)
        return len(slots) <= places or self._store.nearly_full(slots) <= places

    @property
    def batches_finished(self) -> int:
        """Return how many batches were filled so far."""
        return self._queue.batches_put

    def take(self, timeout_s: float) -> UnrollBatch | None:
        """Return the next batch, or None after `timeout_s` without one or when the source is closed and empty.

        The transitions of the batch (`identity.transitions`) are in account TRAINING from now on.
        """
        batch = self._queue.take(timeout_s)
        if batch is not None:
            self._ledger.begin_training(_transitions(batch, self._batch_unrolls))
        return batch

    def settle(self, batch: UnrollBatch, finite: np.ndarray | None, priorities: np.ndarray | None) -> Settled:
        """Close the books on a batch: consumed, or dropped where its update was skipped or broke off."""
        if finite is None:
            self._ledger.drop(_transitions(batch, batch.count), Reason.SHUTDOWN, Account.TRAINING)
            return Settled(0, 0)
        by_step = batch.identity.transitions[: batch.count].reshape(len(finite), -1).sum(axis=1)
        trained, skipped = int(by_step[finite].sum()), int(by_step[~finite].sum())
        self._ledger.consume(trained)
        self._ledger.drop(skipped, Reason.NONFINITE_UPDATE, Account.TRAINING)
        return Settled(trained, skipped)

    def give_back(self, batch: UnrollBatch) -> None:
        """Return the columns for reuse, once no computation reads them any more.

        Raises:
            AioseedError: The batch is not lent.
        """
        self._queue.give_back(batch)

    @property
    def ready(self) -> int:
        """Return the number of batches that wait."""
        return self._queue.ready

    def statistics(self) -> QueueStatistics:
        """Return what is measured of the queue."""
        return self._queue.statistics()

    def stop(self) -> None:
        """Wake everybody who waits: no batch is filled any more, full ones can still be taken. Idempotent."""
        self._queue.close()

    def close(self, reason: Reason = Reason.SHUTDOWN) -> None:
        """Drop what is left: full unrolls for `reason`, open ones as partial_unroll. Idempotent."""
        self.stop()
        left = sum(_transitions(batch, self._batch_unrolls) for batch in self._queue.clear())
        self._ledger.drop(left + self._partial(), reason, Account.QUEUED)
        self._filling, self._filled = None, 0
        self.drop(self._store.open_slots, Reason.PARTIAL_UNROLL)

    def audit(self) -> None:
        """Recount the held transitions row by row and compare with the ledger.

        Raises:
            AioseedError: They differ, or the ledger is out of balance.
        """
        queued = sum(_transitions(batch, self._batch_unrolls) for batch in self._queue.waiting())
        self._ledger.audit({Account.OPEN: self._store.recount(), Account.QUEUED: queued + self._partial()})

    def _queue_full(self, slots: np.ndarray) -> None:
        full = self._store.full(slots)
        done = 0
        while done < len(slots):
            if self._filling is None:
                self._filling = self._queue.acquire()
            if self._filling is None:
                left = int(full.identity.transitions[done:].sum())
                self._ledger.drop(left, Reason.SHUTDOWN, Account.OPEN)
                break
            count = min(len(slots) - done, self._batch_unrolls - self._filled)
            self._store.copy_out(full, done, count, self._filling, self._filled)
            self._ledger.finish(int(full.identity.transitions[done : done + count].sum()))
            done += count
            self._filled += count
            if self._filled == self._batch_unrolls:
                self._queue.put(self._with_priorities(self._filling))
                self._filling, self._filled = None, 0
        self._store.begin_next(full)

    def _with_priorities(self, buffer: UnrollBuffer) -> UnrollBuffer:
        if self._priorities is None:
            return buffer
        return buffer._replace(batch=replace(buffer.batch, priorities=self._priorities(buffer.batch.columns)))

    def _partial(self) -> int:
        return 0 if self._filling is None else _transitions(self._filling.batch, self._filled)


def _transitions(batch: UnrollBatch, unrolls: int) -> int:
    return int(batch.identity.transitions[:unrolls].sum())


def _select(
    steps: StepColumns, acts: ActColumns, chosen: np.ndarray, begins_state: BeginsState
) -> tuple[StepColumns, ActColumns, BeginsState]:
    selected = steps._replace(
        slot=steps.slot[chosen],
        epoch=steps.epoch[chosen],
        sequence=steps.sequence[chosen],
        flags=steps.flags[chosen],
        reward=steps.reward[chosen],
        observation=tuple(leaf[chosen] for leaf in steps.observation),
    )
    acted = acts._replace(
        action=acts.action[chosen],
        previous_action=acts.previous_action[chosen],
        extras=tuple(leaf[chosen] for leaf in acts.extras),
    )

    def state_of(rows: np.ndarray) -> Sequence[np.ndarray]:
        return begins_state(chosen[rows])

    return selected, acted, state_of
