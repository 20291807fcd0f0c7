"""Columns go round; what is kept of them elsewhere is made anew, and not by the event loop where that takes long."""

from __future__ import annotations

import numpy as np

from aioseed.serving.rows import RowPool
from aioseed.specs import ArraySpec
from aioseed.wire.columns import StepLayout

STEPS = StepLayout(ArraySpec("uint8", (4,)), 0)


def pool(*, at_once: bool = False) -> tuple[RowPool, list[tuple[int, ...]]]:
    made: list[tuple[int, ...]] = []

    def zeros(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
        made.append(shape)
        return np.zeros(shape, dtype)

    return RowPool(STEPS, 8, zeros, at_once=at_once), made


def test_columns_that_were_released_are_taken_again() -> None:
    rows, made = pool()
    first, second = rows.take(), rows.take()
    assert first is not second and first.columns.slot.shape == (8,)
    count = len(made)
    first.release()
    assert rows.take() is first and len(made) == count


def test_a_refill_makes_columns_only_where_none_is_free() -> None:
    rows, made = pool()
    taken = rows.take()
    one = len(made)
    rows.refill()
    rows.refill()
    assert len(made) == 2 * one
    assert rows.take() is not taken and len(made) == 2 * one


def test_memory_that_is_taken_at_once_counts_as_a_whole() -> None:
    assert pool()[0].take().resident_rows == 0
    assert pool(at_once=True)[0].take().resident_rows == 8
