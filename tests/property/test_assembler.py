"""Held against a naive model that keeps one dict a row: invariants 1, 3 and 4, and the states of invariant 2."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.experience import lent, store
from aioseed.experience.assembler import UnrollAssembler
from aioseed.specs import ArraySpec
from aioseed.telemetry.ledger import Ledger, Reason
from aioseed.types import FIRST, ActColumns, StepColumns, UnrollBatch, UnrollLayout

ENVIRONMENTS = 5
INITIAL_STATE = 0


def next_state(state: int, number: int) -> int:
    """Return a state that tells the whole history since the episode's first row."""
    return int.from_bytes(hashlib.blake2b(f"{state},{number}".encode(), digest_size=8).digest(), "little")


class Model:
    """What the room should do, written row by row."""

    def __init__(self, layout: UnrollLayout) -> None:
        self.layout = layout
        self.rows: list[list[dict[str, int]]] = [[] for _ in range(ENVIRONMENTS)]  # of the slot's epoch
        self.state = [INITIAL_STATE] * ENVIRONMENTS
        self.epoch = [7] * ENVIRONMENTS
        self.evaluation = [False] * ENVIRONMENTS
        self.unrolls: list[list[dict[str, int]]] = []
        self.transitions: list[int] = []
        self.accepted = self.evaluated = self.dropped = 0
        self.number = 0

    def make_row(self, slot: int, flags: int) -> dict[str, int]:
        self.number += 1
        if not self.rows[slot]:
            flags |= int(FIRST)
        entering = INITIAL_STATE if flags & FIRST else self.state[slot]
        sequence = len(self.rows[slot])
        row = {"slot": slot, "epoch": self.epoch[slot], "sequence": sequence}
        return {**row, "flags": flags, "number": self.number, "entering": entering}

    def append(self, row: dict[str, int]) -> None:
        slot = row["slot"]
        self.rows[slot].append(row)
        self.state[slot] = next_state(row["entering"], row["number"])
        transition = not row["flags"] & FIRST
        self.accepted += transition
        if self.evaluation[slot]:
            self.evaluated += transition
            return
        begin = len(self.rows[slot]) - self.layout.rows
        if begin >= 0 and begin % self.layout.unroll_steps == 0:
            unroll = self.rows[slot][begin:]
            own = unroll[1:] if begin == 0 else unroll[self.layout.overlap_steps + 1 :]
            self.unrolls.append(unroll)
            self.transitions.append(sum(not row["flags"] & FIRST for row in own))

    def begins_unroll(self, row: dict[str, int]) -> bool:
        return row["sequence"] % self.layout.unroll_steps == 0 and not self.evaluation[row["slot"]]

    def lease(self, slot: int, evaluation: bool) -> None:
        if not self.evaluation[slot]:
            rows, layout = self.rows[slot], self.layout
            full = max(0, (len(rows) - layout.overlap_steps - 1) // layout.unroll_steps)
            held = rows[layout.overlap_steps + full * layout.unroll_steps + 1 :] if full else rows
            self.dropped += sum(not row["flags"] & FIRST for row in held)
        self.rows[slot] = []
        self.epoch[slot] += 3
        self.evaluation[slot] = evaluation


class Recycled:
    """Columns that hold rubbish once they are released, as those of a pool do."""

    def __init__(self, steps: StepColumns) -> None:
        self.steps = steps
        self.resident_rows = len(steps.slot)
        self.is_released = False

    def release(self) -> None:
        assert not self.is_released
        self.is_released = True
        for column in (*self.steps[:-1], *self.steps.observation):
            column[...] = 99


class Road:
    """The room under test, fed with the model's rows."""

    def __init__(self, layout: UnrollLayout, batch_unrolls: int) -> None:
        self.loans: list[Recycled] = []
        self.ledger = Ledger()
        self.assembler = UnrollAssembler(
            layout,
            max_environments=ENVIRONMENTS,
            batch_unrolls=batch_unrolls,
            queue_batches=ENVIRONMENTS,
            ledger=self.ledger,
        )
        self.model = Model(layout)
        self.layout = layout
        self.batch_unrolls = batch_unrolls
        self.seen = 0  # unrolls taken

    def append(self, slots: Sequence[int], flags: Sequence[int], spare: int) -> None:
        rows = [self.model.make_row(slot, flag) for slot, flag in zip(slots, flags, strict=False)]
        expected_begins = [i for i, row in enumerate(rows) if self.model.begins_unroll(row)]
        asked: list[int] = []

        def begins_state(which: np.ndarray) -> list[np.ndarray]:
            asked.extend(which.tolist())
            entering = np.array([rows[i]["entering"] for i in which], np.uint64)
            return [entering, np.stack([entering % 251, entering % 17], axis=-1).astype(np.float64)]

        steps, acts = columns(rows, spare)
        loan = Recycled(steps)
        self.loans.append(loan)
        self.assembler.append(steps, acts, len(rows), begins_state, loan)
        assert asked == expected_begins
        for row in rows:
            self.model.append(row)

    def lease(self, slots: Sequence[int], evaluation: bool) -> None:
        self.assembler.drop(np.array(slots, np.uint32), Reason.LEASE_ENDED)
        self.assembler.begin(np.array(slots, np.uint32), evaluation=evaluation)
        for slot in slots:
            self.model.lease(slot, evaluation)

    def train(self) -> None:
        while (batch := self.assembler.take(0.0)) is not None:
            assert batch.count == self.batch_unrolls
            for place in range(batch.count):
                check_unroll(batch, place, self.model.unrolls[self.seen], self.model.transitions[self.seen])
                self.seen += 1
            self.ledger.consume(int(batch.identity.transitions.sum()))
            self.assembler.give_back(batch)

    def check_books(self) -> None:
        self.assembler.audit()
        books = self.ledger.snapshot()
        assert books.imbalance == 0
        assert (books.accepted, books.evaluated) == (self.model.accepted, self.model.evaluated)
        assert sum(books.dropped.values()) == self.model.dropped
        assert books.consumed == sum(self.model.transitions[: self.seen])
        assert books.queued == sum(self.model.transitions[self.seen :])


def columns(rows: Sequence[dict[str, int]], spare: int) -> tuple[StepColumns, ActColumns]:
    """Return the rows as columns with `spare` rows of rubbish behind them."""

    def column(name: str, dtype: str) -> np.ndarray:
        return np.array([*(row[name] for row in rows), *([255] * spare)], dtype)

    number = column("number", "int64")
    steps = StepColumns(
        slot=column("slot", "uint32"),
        epoch=column("epoch", "uint64"),
        sequence=column("sequence", "uint32"),
        flags=column("flags", "uint8"),
        reward=number.astype(np.float32),
        metrics=np.zeros((len(number), 0), np.float32),
        observation=(
            np.stack([number, -number, 2 * number], axis=-1).astype(np.float32),
            np.asfortranarray(np.stack([number % 7, number % 5], axis=-1).astype(np.uint8)),
        ),
    )
    version = rows[0]["number"] if rows else 0
    for row in rows:
        row["version"] = version
    acts = ActColumns(
        action=np.stack([number, number + 1], axis=-1).astype(np.int32),
        previous_action=np.stack([number, number - 1], axis=-1).astype(np.int32),
        extras=((number / 2).astype(np.float32),),
        policy_version=version,
    )
    return steps, acts


def check_unroll(batch: UnrollBatch, place: int, rows: Sequence[dict[str, int]], transitions: int) -> None:
    identity, data = batch.identity, batch.columns
    assert identity.slot[place] == rows[0]["slot"]
    assert identity.epoch[place] == rows[0]["epoch"]
    assert identity.sequence[place] == rows[0]["sequence"]
    assert identity.transitions[place] == transitions
    expected, expected_acts = columns([dict(row) for row in rows], 0)
    pairs = [
        (data.reward, expected.reward),
        (data.flags, expected.flags),
        (data.action, expected_acts.action),
        (data.previous_action, expected_acts.previous_action),
        (data.extras[0], expected_acts.extras[0]),
        (data.policy_version, np.array([row["version"] for row in rows])),
        *zip(data.observation, expected.observation, strict=True),
    ]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[:, place], theirs)
    entering = rows[0]["entering"]
    assert data.initial_state[0][place] == entering
    np.testing.assert_array_equal(data.initial_state[1][place], [entering % 251, entering % 17])


slots_of = st.lists(st.integers(0, ENVIRONMENTS - 1), unique=True, max_size=ENVIRONMENTS)
flags_of = st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 2, 4]), min_size=ENVIRONMENTS, max_size=ENVIRONMENTS)
appending = st.tuples(st.just("append"), slots_of | st.just([0, 1, 2, 3, 4]) | st.just([1, 2, 3]), flags_of)
leasing = st.tuples(st.just("lease"), slots_of, st.booleans())
Script: TypeAlias = list[tuple[tuple[str, list[int], object], int]]


@pytest.mark.parametrize("lent_from_bytes", [1024, 12, 8], ids=["none", "a leaf", "actions too"])
@pytest.mark.parametrize("lent_times", [0, 0.4, 2])
@given(
    unroll_steps=st.integers(1, 6),
    overlap_steps=st.integers(0, 7),
    batch_unrolls=st.integers(1, 4),
    script=st.lists(st.tuples(appending | appending | appending | leasing, st.integers(1, 9)), max_size=14),
)
def test_unrolls_states_and_ledger_agree_with_a_model_of_single_rows(
    lent_from_bytes: int,
    lent_times: float,
    unroll_steps: int,
    overlap_steps: int,
    batch_unrolls: int,
    script: Script,
) -> None:
    layout = UnrollLayout(
        observation=(ArraySpec("float32", (3,)), ArraySpec("uint8", (2,))),
        action=ArraySpec("int32", (2,)),
        extras=(ArraySpec("float32", ()),),
        state=(ArraySpec("uint64", ()), ArraySpec("float32", (2,))),
        unroll_steps=unroll_steps,
        overlap_steps=overlap_steps,
    )
    with (
        mock.patch.object(store, "LENT_ROW_BYTES", lent_from_bytes),
        mock.patch.object(lent, "LENT_TIMES", lent_times),
    ):
        play(Road(layout, batch_unrolls), script)


def play(road: Road, script: Script) -> None:
    for (kind, slots, detail), repeats in script:
        if kind == "lease":
            road.lease(slots, bool(detail))
        else:
            assert isinstance(detail, list)
            for turn in range(repeats):
                road.append(slots, detail[turn % 5 :] + detail[: turn % 5], spare=turn % 3)
                road.train()
        road.check_books()
    held = road.ledger.snapshot().held
    dropped = sum(road.ledger.snapshot().dropped.values())
    road.assembler.close()
    books = road.ledger.snapshot()
    assert (books.held, books.imbalance, sum(books.dropped.values())) == (0, 0, held + dropped)
    assert all(loan.is_released for loan in road.loans)
