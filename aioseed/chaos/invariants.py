"""What must always hold, each as a check that any test can call (the seven invariants of docs/architecture.md).

A check raises `Violation` with one sentence. `Expectation` knows, from the seed of the run alone, every row that the
counting environment of a slot and an epoch yields under the tracer agent, so that the first three are compared with
what must be there, not with themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aioseed.actor.seeds import environment_seed
from aioseed.specs import Json
from aioseed.telemetry.ledger import LedgerSnapshot
from aioseed.testing.counting import ACTIONS, episode_steps
from aioseed.types import FINAL, FIRST, TERMINATED, TRUNCATED, UnrollBatch

_WORD = 2**32 - 1


class Violation(AssertionError):
    """Report that something which must always hold did not."""


def require(holds: bool, sentence: str) -> None:
    """Raise `Violation` with `sentence` unless it `holds`."""
    if not holds:
        raise Violation(sentence)


class Row(NamedTuple):
    """Hold what one row of a counting environment under the tracer agent must be."""

    flags: int
    reward: float
    observation: tuple[int, int, int, int]
    action: int
    state: tuple[int, int]  # after the row


class Expectation:
    """Compute the rows of (slot, epoch), one after the other.

    Args:
        run_seed: Of the run, as WELCOME names it.
    """

    def __init__(self, run_seed: int) -> None:
        self._run_seed = run_seed
        self._rows: dict[tuple[int, int], list[Row]] = {}

    def rows(self, slot: int, epoch: int, stop: int) -> list[Row]:
        """Return at least the first `stop` rows of an epoch."""
        known = self._rows.setdefault((slot, epoch), [])
        seed = environment_seed(self._run_seed, slot, epoch)
        while len(known) < stop:
            known.append(_after(known[-1] if known else None, seed, slot, epoch))
        return known

    def forget(self, slot: int, before_epoch: int) -> None:
        """Forget the epochs of a slot before one."""
        for key in [key for key in self._rows if key[0] == slot and key[1] < before_epoch]:
            del self._rows[key]


def _after(last: Row | None, seed: int, slot: int, epoch: int) -> Row:
    episode, step, action = 0, 0, 0
    state = (0, 0)
    if last is not None and last.flags & FINAL:
        episode = last.observation[1] + 1
    elif last is not None:
        episode, step, action, state = last.observation[1], last.observation[2] + 1, last.action, last.state
    flags = int(FIRST) if step == 0 else 0
    if step == episode_steps(seed, episode):
        flags = int(TRUNCATED if episode % 2 else TERMINATED)
    observation = (seed, episode, step, action)
    for word in (slot, (epoch & _WORD) ^ (epoch >> 32), *observation):
        state = _mixed(*state, word)
    return Row(flags, float(step), observation, state[0] % ACTIONS, state)


def _mixed(low: int, high: int, word: int) -> tuple[int, int]:
    """Return what `aioseed.testing.tracer.mix` makes of Python's integers."""
    low = (low ^ word) * 0x85EBCA6B & _WORD
    low ^= low >> 13
    high = ((high ^ (low << 7 & _WORD) ^ (low >> 25)) * 0xC2B2AE35 + word) & _WORD
    high ^= high >> 16
    return low ^ (high << 11 & _WORD), high


class Unrolls:
    """Check batches of unrolls as they come to training: invariants 1, 2, 3 and 5. One for each lineage of parameters.

    Args:
        expectation: What the rows must be.
        overlap_steps: Rows that an unroll repeats beyond the usual one.
    """

    def __init__(self, expectation: Expectation, overlap_steps: int = 0) -> None:
        self._expectation = expectation
        self._overlap_steps = overlap_steps
        self._trained_until: dict[tuple[int, int], int] = {}  # (slot, epoch) -> last sequence number in an unroll
        self.transitions = 0
        self.unrolls = 0

    def check(self, batch: UnrollBatch) -> None:
        """Check every unroll of a batch.

        Raises:
            Violation: Naming the unroll.
        """
        for index in range(batch.count):
            self._check_one(batch, index)

    def _check_one(self, batch: UnrollBatch, index: int) -> None:
        identity, columns = batch.identity, batch.columns
        slot, epoch, start = (int(column[index]) for column in identity[:3])
        rows = columns.flags.shape[0]
        what = f"the unroll of slot {slot}, epoch {epoch:#x}, from row {start}"
        expected = self._expectation.rows(slot, epoch, start + rows)
        first_run = start == 0
        state = (0, 0) if first_run or expected[start].flags & FIRST else expected[start - 1].state
        entered = tuple(columns.initial_state[0][index].tolist())
        # A first row does not look at the state that its slot had before; what is stored is the state that entered it.
        require(entered == state, f"{what}: the state that entered row 0 is {entered}, not {state}")
        for row in range(rows):
            self._check_row(batch, index, row, expected[start + row], what)
        repeats = self._overlap_steps + 1
        until = self._trained_until.get((slot, epoch))
        require(
            (until is None and first_run) or until == start + repeats - 1,
            f"{what} does not follow the unroll that ended with row {until}",
        )
        self._trained_until[slot, epoch] = start + rows - 1
        own_from = 1 if first_run else repeats
        own = sum(not row.flags & FIRST for row in expected[start + own_from : start + rows])
        transitions = int(identity.transitions[index])
        require(transitions == own, f"{what} claims {transitions} transitions, {own} are its own")
        self.transitions += own
        self.unrolls += 1

    def _check_row(self, batch: UnrollBatch, index: int, row: int, expected: Row, what: str) -> None:
        columns, at = batch.columns, (row, index)
        seen = Row(
            int(columns.flags[at]),
            float(columns.reward[at]),
            tuple(columns.observation[0][at].tolist()),
            int(columns.action[at]),
            tuple(columns.extras[0][at].tolist()),
        )
        require(seen == expected, f"{what}: row {row} is {seen}, not {expected}")


class Applied:
    """Check rows as they enter the unrolls: each follows the last of its slot and none is applied twice (1 and 3)."""

    def __init__(self) -> None:
        self._epoch: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self.rows = 0
        self.transitions = 0

    def check(self, slot: np.ndarray, epoch: np.ndarray, sequence: np.ndarray, flags: np.ndarray) -> None:
        """Check the rows of one batch.

        Raises:
            Violation: Naming the row.
        """
        for s, e, q, f in zip(slot.tolist(), epoch.tolist(), sequence.tolist(), flags.tolist(), strict=True):
            before = self._epoch.get(s, 0)
            what = f"row {q} of slot {s}, epoch {e:#x}"
            require(e >= before, f"{what} comes after a row of the later epoch {before:#x}")
            if e > before:
                self._epoch[s], self._next[s] = e, 0
                require(bool(f & FIRST), f"{what} begins an epoch without a reset")
            require(q == self._next[s], f"{what} is applied where row {self._next[s]} must come")
            self._next[s] = q + 1
            self.rows += 1
            self.transitions += not f & FIRST


def check_ledger(ledger: LedgerSnapshot, *, rest: bool = False) -> None:
    """Check that the ledger balances (invariant 4), and at the end of a run that nothing is held any more.

    Raises:
        Violation: With the account.
    """
    require(ledger.imbalance == 0, f"the ledger is out of balance by {ledger.imbalance}: {ledger}")
    negative = [name for name, count in ledger._asdict().items() if isinstance(count, int) and count < 0]
    require(not negative, f"the ledger has negative counts: {negative}")
    require(not rest or ledger.on_the_way == 0, f"{ledger.on_the_way} transitions are held after the end: {ledger}")


def check_borders(flags: np.ndarray) -> None:
    """Check the borders of episodes in unrolls, uint8[T+1, B] (invariant 5): after a final row comes a first one.

    Raises:
        Violation: With the place.
    """
    first, final = (flags & FIRST) != 0, (flags & FINAL) != 0
    require(not (first & final).any(), "a first row is final")
    require(bool(first[1:][final[:-1]].all()), "a final row is not followed by a first one")


def check_delays(gaps_s: Sequence[float], usual_s: float, deadline_s: float, incidents: int) -> None:
    """Check that others lost at most one batching deadline an incident (invariant 6).

    Args:
        gaps_s: Times between the answers of somebody who did nothing wrong.
        usual_s: What such a gap takes when all is well, generously.
        deadline_s: ``serving.batch_deadline_s``.
        incidents: How often somebody else froze, died or was slow.

    Raises:
        Violation: A gap was longer than a deadline allows, or too many were.
    """
    late = [gap_s for gap_s in gaps_s if gap_s > usual_s]
    longest_s = max(late, default=0.0)
    require(longest_s <= usual_s + deadline_s, f"somebody waited {longest_s:.3f} s for others")
    require(len(late) <= incidents, f"{len(late)} answers were late for {incidents} incidents")


def check_restored(
    saved: Mapping[str, np.ndarray], restored: Mapping[str, np.ndarray], counters: Json, counters_after: Json
) -> None:
    """Check that what a run goes on from equals what was saved, bit for bit (invariant 7).

    Raises:
        Violation: With the array.
    """
    require(saved.keys() == restored.keys(), f"arrays differ: {sorted(saved.keys() ^ restored.keys())}")
    for name, array in saved.items():
        same = array.dtype == restored[name].dtype and array.shape == restored[name].shape
        require(same and array.tobytes() == restored[name].tobytes(), f"{name} was restored to something else")
    require(counters == counters_after, f"counters were {counters} and are {counters_after}")
