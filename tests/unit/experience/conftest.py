"""A feeder that numbers rows by itself, so that a test says only which slots send which observations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from aioseed.experience.assembler import UnrollAssembler
from aioseed.specs import ArraySpec
from aioseed.telemetry.ledger import Ledger
from aioseed.types import FIRST, ActColumns, CopiedRows, StepColumns, UnrollBatch, UnrollColumns, UnrollLayout


def make_layout(unroll_steps: int, overlap_steps: int = 0, state: tuple[ArraySpec, ...] = ()) -> UnrollLayout:
    """Return a layout whose observation is one integer."""
    number = ArraySpec("int32", ())
    return UnrollLayout((number,), number, (), state, unroll_steps, overlap_steps)


class Feeder:
    """Feeds an assembler and collects what comes out."""

    def __init__(
        self,
        layout: UnrollLayout,
        *,
        batch_unrolls: int = 1,
        queue_batches: int = 8,
        clock: Callable[[], float] = time.perf_counter,
        priorities: Callable[[UnrollColumns], np.ndarray] | None = None,
    ) -> None:
        self.layout = layout
        self.ledger = Ledger()
        self.assembler = UnrollAssembler(
            layout,
            max_environments=8,
            batch_unrolls=batch_unrolls,
            queue_batches=queue_batches,
            ledger=self.ledger,
            clock=clock,
            priorities=priorities,
        )
        self.sequence = [0] * 8
        self.epoch = [1] * 8
        self.policy_version = 5
        self.begin_calls: list[list[int]] = []

    def steps(self, slots: Sequence[int], values: Sequence[int], flags: Sequence[int] | None = None) -> StepColumns:
        """Return the next row of each slot, FIRST where it is the first of an epoch."""
        sequence = [self.sequence[slot] for slot in slots]
        begun = [int(FIRST) if not number else 0 for number in sequence]
        return StepColumns(
            slot=np.array(slots, np.uint32),
            epoch=np.array([self.epoch[slot] for slot in slots], np.uint64),
            sequence=np.array(sequence, np.uint32),
            flags=np.array(begun if flags is None else flags, np.uint8),
            reward=np.zeros(len(slots), np.float32),
            metrics=np.zeros((len(slots), 0), np.float32),
            observation=(np.array(values, np.int32),),
        )

    def send(self, steps: StepColumns, count: int) -> None:
        """Append the first `count` rows of `steps` as they are."""
        chosen = acts(len(steps.slot), self.policy_version)
        self.assembler.append(steps, chosen, count, self.begins_state, CopiedRows(count))

    def feed(self, slots: Sequence[int], values: Sequence[int], flags: Sequence[int] | None = None) -> None:
        """Append the next row of each slot."""
        self.send(self.steps(slots, values, flags), len(slots))
        for slot in slots:
            self.sequence[slot] += 1

    def lease(self, *slots: int, evaluation: bool = False) -> None:
        """End the leases of `slots` and begin new ones."""
        self.assembler.drop(np.array(slots), "lease_ended")
        self.assembler.begin(np.array(slots), evaluation=evaluation)
        for slot in slots:
            self.sequence[slot] = 0
            self.epoch[slot] += 1

    def unrolls(self) -> list[list[int]]:
        """Take all that is ready and return the observations of each unroll."""
        taken = []
        while (batch := self.assembler.take(0.0)) is not None:
            taken += [batch.columns.observation[0][:, place].tolist() for place in range(batch.count)]
            self.consume(batch)
        return taken

    def consume(self, batch: UnrollBatch) -> None:
        """Close the books on a batch and give it back."""
        self.ledger.consume(int(batch.identity.transitions.sum()))
        self.assembler.give_back(batch)

    def begins_state(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the row number times ten as state and remember the call."""
        self.begin_calls.append(rows.tolist())
        return [rows.astype(np.float32) * 10]


def acts(count: int, policy_version: int) -> ActColumns:
    """Return actions of no meaning."""
    return ActColumns(np.zeros(count, np.int32), np.zeros(count, np.int32), (), policy_version)


@pytest.fixture
def feeder() -> Callable[..., Feeder]:
    """Return a maker of feeders."""

    def make(unroll_steps: int, overlap_steps: int = 0, *, state: tuple[ArraySpec, ...] = (), **options: Any) -> Feeder:
        return Feeder(make_layout(unroll_steps, overlap_steps, state), **options)

    return make


@pytest.fixture
def layout() -> UnrollLayout:
    """Return a small layout."""
    return make_layout(4)
