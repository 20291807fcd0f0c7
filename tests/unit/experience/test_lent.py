"""Large rows stay in the batches they came in: for as long as they are needed, and not for ever."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.experience import lent
from aioseed.experience.layout import UnrollBuffer, allocate_buffer
from aioseed.experience.store import UnrollStore
from aioseed.specs import ArraySpec
from aioseed.types import FIRST, ActColumns, StepColumns, UnrollLayout

NUMBER = ArraySpec("int32", ())
LAYOUT = UnrollLayout((ArraySpec("uint8", (2048,)),), NUMBER, (), (), unroll_steps=4, overlap_steps=1)
SLOTS = 5


class Batch:
    """The columns of a batch, which hold something else once they were released."""

    def __init__(self, slots: list[int], sequence: list[int], resident_rows: int | None = None) -> None:
        self.resident_rows = len(slots) if resident_rows is None else resident_rows
        self.releases = 0
        pictures = np.zeros((len(slots), 2048), np.uint8)
        pictures[:, 0], pictures[:, -1] = slots, sequence
        self.steps = StepColumns(
            slot=np.array(slots, np.uint32),
            epoch=np.ones(len(slots), np.uint64),
            sequence=np.array(sequence, np.uint32),
            flags=np.where(np.array(sequence) == 0, FIRST, 0).astype(np.uint8),
            reward=np.zeros(len(slots), np.float32),
            metrics=np.zeros((len(slots), 0), np.float32),
            observation=(pictures,),
        )

    def release(self) -> None:
        self.releases += 1
        self.steps.observation[0][...] = 255


class Play:
    """A store, and all batches that it was given."""

    def __init__(self) -> None:
        self.store = UnrollStore(LAYOUT, SLOTS)
        self.batches: list[Batch] = []
        self.at = [0] * SLOTS
        self.unrolls: list[tuple[int, list[int], list[int]]] = []  # slot, whose and which pictures

    def step(self, *slots: int, resident_rows: int | None = None) -> None:
        batch = Batch([*slots], [self.at[slot] for slot in slots], resident_rows)
        self.batches.append(batch)
        numbers = np.zeros(len(slots), np.int32)
        full, _ = self.store.append(
            batch.steps, ActColumns(numbers, numbers, (), 0), len(slots), lambda rows: [], batch
        )
        for slot in slots:
            self.at[slot] += 1
        if full.size:
            found, buffer = self.store.full(full), allocate_buffer(LAYOUT, full.size)
            self.store.copy_out(found, 0, full.size, buffer, 0)
            self.store.begin_next(found)
            self._note(buffer)

    @property
    def lent(self) -> list[Batch]:
        return [batch for batch in self.batches if not batch.releases]

    def _note(self, buffer: UnrollBuffer) -> None:
        (pictures,) = buffer.batch.columns.observation
        for place, slot in enumerate(buffer.batch.identity.slot.tolist()):
            self.unrolls.append((slot, pictures[:, place, 0].tolist(), pictures[:, place, -1].tolist()))


@pytest.fixture
def play() -> Play:
    return Play()


def test_a_batch_is_given_back_when_no_open_unroll_needs_a_row_of_it(play: Play) -> None:
    for _ in range(5):
        play.step(0, 1, 2)
    assert [batch.releases for batch in play.batches] == [0] * 5
    play.step(0, 1)  # full: rows 4 and 5 begin the next
    assert play.unrolls == [(slot, [slot] * 6, [0, 1, 2, 3, 4, 5]) for slot in (0, 1)]
    assert [batch.releases for batch in play.batches] == [0] * 6  # environment 2 needs them still
    play.step(2)
    assert [batch.releases for batch in play.batches] == [1, 1, 1, 1, 0, 0, 0]
    play.store.drop(np.array([0, 2]))
    assert [batch.releases for batch in play.batches] == [1, 1, 1, 1, 0, 0, 1]
    play.store.drop(np.array([1]))
    assert [batch.releases for batch in play.batches] == [1] * 7


def test_nothing_is_kept_of_a_batch_without_rows(play: Play) -> None:
    play.step()
    assert play.batches[0].releases == 1


def test_a_frozen_environment_keeps_no_more_than_the_bound_and_loses_nothing(play: Play) -> None:
    for _ in range(3):
        play.step(0, 1, 2, 3, 4, resident_rows=15)
    most = 0
    for _ in range(20):  # and 4 says nothing any more
        play.step(0, 1, 2, 3)
        most = max(most, sum(batch.resident_rows for batch in play.lent))
    assert 50 < most <= lent.LENT_TIMES * LAYOUT.rows * SLOTS
    assert [batch.releases for batch in play.batches[:3]] == [1, 0, 0]  # the oldest one's row was copied
    for _ in range(7):
        play.step(4)
    assert [unroll for unroll in play.unrolls if unroll[0] == 4] == [
        (4, [4] * 6, [0, 1, 2, 3, 4, 5]),
        (4, [4] * 6, [4, 5, 6, 7, 8, 9]),
    ]


def test_columns_that_take_much_memory_are_given_back_sooner(play: Play) -> None:
    for _ in range(30):
        play.step(0, 1, 2, 3, 4, resident_rows=30)
    assert len(play.lent) == lent.LENT_TIMES * LAYOUT.rows * SLOTS // 30 == 2
    assert {whose[0]: which[0] for _, whose, which in play.unrolls} == dict.fromkeys(range(SLOTS), 24)
    assert all(
        whose == [slot] * 6 and which == list(range(which[0], which[0] + 6)) for slot, whose, which in play.unrolls
    )


def test_what_is_lent_shrinks_with_the_environments_in_small_steps(play: Play) -> None:
    for _ in range(4):
        play.step(0)
        play.step(1, 2, 3)
    assert len(play.lent) == 8
    play.store.drop(np.array([1, 2]))
    before = len(play.lent)
    play.step(3, resident_rows=20)
    assert before - len(play.lent) == lent.MOST_COPIED - 1  # two were copied, one came
    play.step(3)
    assert play.unrolls[-1] == (3, [3] * 6, [0, 1, 2, 3, 4, 5])


def test_places_that_are_used_again_are_not_taken_for_what_was_there_before(play: Play) -> None:
    for _ in range(6):
        play.step(0, 1, 2, 3, 4)
    play.step(4)  # where the fourth batch was, of which five rows were known
    for slot in (0, 1, 2):
        play.step(slot, resident_rows=100)  # so that all before it is copied
    assert [batch.releases for batch in play.batches] == [1] * 9 + [0]
    for _ in range(3):
        play.step(4)
    assert play.unrolls[-1] == (4, [4] * 6, [4, 5, 6, 7, 8, 9])


def test_rows_that_were_copied_to_the_grid_begin_the_next_unroll_from_there(play: Play) -> None:
    for steps in (5, 4, 4):
        for _ in range(steps):
            play.step(0, 4)
        for slot in (1, 2, 3):
            play.step(slot, resident_rows=100)  # so that all before is copied, also the row that two unrolls share
        assert all(batch.steps.slot[0] != 0 for batch in play.lent)
    play.step(0, 4)
    for slot in (0, 4):
        assert [unroll for unroll in play.unrolls if unroll[0] == slot] == [
            (slot, [slot] * 6, list(range(begin, begin + 6))) for begin in (0, 4, 8)
        ]


def test_what_is_known_of_batches_does_not_grow_with_the_run(play: Play) -> None:
    counts = []
    for _ in range(3):
        for _ in range(40):
            play.step(0, 1, 2, 3, 4)
        assert play.store._lent is not None
        counts.append(len(play.store._lent._columns))
    assert counts[0] == counts[-1] < 20
