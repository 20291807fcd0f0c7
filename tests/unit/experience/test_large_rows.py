"""Rows as large as pictures take roads of their own, shared out among threads: what comes out is what went in."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.experience import copies
from aioseed.experience.copies import Copier
from aioseed.experience.layout import UnrollBuffer, allocate_buffer
from aioseed.experience.replay.blocks import _CACHED_BYTES, BLOCKS
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.replay import Replay
from aioseed.experience.store import UnrollStore
from aioseed.specs import ArraySpec
from aioseed.types import FIRST, ActColumns, CopiedRows, StepColumns, UnrollLayout

NUMBER = ArraySpec("int32", ())
LAYOUT = UnrollLayout((ArraySpec("uint8", (60, 60, 1)), NUMBER), NUMBER, (), (), unroll_steps=6, overlap_steps=3)
SLOTS = 7


@pytest.fixture(autouse=True)
def all_copies_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "PART_BYTES", 1)


def rows(slots: list[int], sequence: list[int]) -> StepColumns:
    """Return rows whose pictures say whose and which they are."""
    count = len(slots)
    pictures = np.zeros((count, 60, 60, 1), np.uint8)
    pictures[:, 0, 0, 0], pictures[:, 59, 59, 0], pictures[:, 20] = slots, sequence, 200
    return StepColumns(
        slot=np.array(slots, np.uint32),
        epoch=np.ones(count, np.uint64),
        sequence=np.array(sequence, np.uint32),
        flags=np.where(np.array(sequence) == 0, FIRST, 0).astype(np.uint8),
        reward=np.array(sequence, np.float32),
        metrics=np.zeros((count, 0), np.float32),
        observation=(pictures, np.array(slots, np.int32)),
    )


def collected(copier: Copier | None, pattern: list[list[int]]) -> list[UnrollBuffer]:
    """Feed the slots of each entry in turn and return every full unroll."""
    held, at, found = UnrollStore(LAYOUT, SLOTS, copier), [0] * SLOTS, []
    for slots in pattern:
        steps = rows(slots, [at[slot] for slot in slots])
        acts = ActColumns(np.zeros(len(slots), np.int32), np.zeros(len(slots), np.int32), (), 3)
        done, _ = held.append(steps, acts, len(slots), lambda begin: [], CopiedRows(len(slots)))
        for slot in slots:
            at[slot] += 1
        if done.size:
            full, buffer = held.full(done), allocate_buffer(LAYOUT, done.size)
            held.copy_out(full, 0, done.size, buffer, 0)
            held.begin_next(full)
            found.append(buffer)
    return found


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_unrolls_of_pictures_are_the_rows_that_came(threads: int) -> None:
    in_step = [list(range(SLOTS))] * 40
    draw = np.random.default_rng(0)
    mixed = [draw.permutation(SLOTS)[: draw.integers(1, SLOTS + 1)].tolist() for _ in range(120)]
    for pattern in (in_step, mixed):
        found = collected(Copier(threads), pattern)
        assert len(found) > 4
        for buffer in found:
            columns, identity = buffer.batch.columns, buffer.batch.identity
            sequence = identity.sequence + np.arange(LAYOUT.rows)[:, None]
            pictures = columns.observation[0]
            np.testing.assert_array_equal(pictures[:, :, 0, 0, 0], np.broadcast_to(identity.slot, sequence.shape))
            np.testing.assert_array_equal(pictures[:, :, 59, 59, 0], sequence)
            np.testing.assert_array_equal(columns.reward, sequence)
            assert (pictures[:, :, 20] == 200).all()


@pytest.mark.parametrize("threads", [0, 3])
def test_replay_of_pictures_gives_back_what_it_took(threads: int) -> None:
    (source, *_) = collected(None, [list(range(SLOTS))] * LAYOUT.rows)
    replay = Replay(LAYOUT, ReplayConfig(capacity_unrolls=BLOCKS * SLOTS, min_unrolls=1), 0, Copier(threads))
    assert replay.blocks._record.itemsize > _CACHED_BYTES
    replay.insert(source, None)
    numbers = np.array([6, 0, 3, 3])
    found = allocate_buffer(LAYOUT, 4)
    replay.blocks.copy_out(numbers, found)
    for mine, its in zip(found.grids, source.grids, strict=True):
        assert np.ascontiguousarray(mine).tobytes() == np.ascontiguousarray(its[:, numbers]).tobytes()
