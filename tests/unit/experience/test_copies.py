"""Copies that are shared out: every piece once, whatever the number of threads, and nobody copies after the return."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.experience.copies import PART_BYTES, Copier, usual_threads

COPIERS = [Copier(threads) for threads in range(4)]


@given(st.sampled_from(COPIERS), st.integers(0, 40), st.integers(0, 6 * PART_BYTES))
def test_every_piece_is_copied_once(copier: Copier, count: int, size_bytes: int) -> None:
    copied = np.zeros(count, np.int64)

    def part(start: int, stop: int) -> None:
        copied[start:stop] += 1

    copier.run(part, count, size_bytes)
    assert (copied == 1).all()


def test_large_copies_are_shared_out_and_small_ones_are_not() -> None:
    names: set[str] = set()
    together = threading.Barrier(3, timeout=20)

    def part(start: int, stop: int) -> None:
        names.add(threading.current_thread().name)
        together.wait()

    Copier(2).run(part, 3, 3 * PART_BYTES)
    assert len(names) == 3

    names.clear()
    Copier(2).run(lambda start, stop: names.add(threading.current_thread().name), 3, PART_BYTES)
    assert names == {threading.current_thread().name}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_is_raised_once_nobody_copies_any_more(failing: int) -> None:
    done: list[int] = []

    def part(start: int, stop: int) -> None:
        if start == failing:
            raise MemoryError("no more")
        done.append(start)

    with pytest.raises(MemoryError, match="no more"):
        Copier(1).run(part, 2, 2 * PART_BYTES)
    assert done == [1 - failing]


def test_small_machines_copy_in_the_thread_that_asks() -> None:
    assert [usual_threads(processors) for processors in (1, 2, 4, 5, 8, 64)] == [0, 0, 0, 1, 4, 8]
    assert usual_threads() >= 0
