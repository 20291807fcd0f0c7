"""Hindsight: how often, how evenly, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.experience.hindsight import GoalLeaves, relabelled
from aioseed.types import UnrollColumns

ROWS, BATCH = 6, 6000


def window(state: tuple[np.ndarray, ...] = ()) -> UnrollColumns:
    """Return one episode a column, of which row t reaches t and wants 100."""
    reached = np.repeat(np.arange(ROWS, dtype=np.float32)[:, None], BATCH, axis=1)
    zeros = np.zeros((ROWS, BATCH), np.float32)
    flags = zeros.astype(np.uint8)
    return UnrollColumns(
        (reached, zeros + 100), zeros, flags, zeros, zeros, flags.astype(np.int32), (), state, zeros[0] + 1
    )


def nearness(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    return (achieved == desired).astype(np.float32)


def wanted(probability: float, start: int = 1) -> tuple[np.ndarray, np.ndarray]:
    starts = np.full(BATCH, start)
    found = relabelled(window(), starts, 1, GoalLeaves(0, 1), nearness, probability, np.random.default_rng(0))
    return found.observation[1], found.reward


def test_as_many_pieces_as_asked_for_get_another_goal() -> None:
    goals, _ = wanted(0.8)
    assert abs(np.mean(goals[0] != 100) - 0.8) < 4 * np.sqrt(0.16 / BATCH)


def test_every_later_row_of_the_episode_is_as_likely() -> None:
    goals, rewards = wanted(1.0)
    counts = np.bincount(goals[1].astype(int), minlength=ROWS)
    assert np.all(counts[:2] == 0) and np.all(np.abs(counts[2:] - BATCH / 4) < 5 * np.sqrt(BATCH / 4))
    np.testing.assert_array_equal(rewards[1], goals[1] == 2)


def test_an_unroll_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        wanted(1.0, start=ROWS - 1)


def test_a_stored_state_belongs_to_the_first_row_alone() -> None:
    stored, arguments = window((np.zeros((BATCH, 3)),)), (1, GoalLeaves(0, 1), nearness, 1.0, np.random.default_rng(0))
    assert relabelled(stored, np.zeros(BATCH, int), *arguments).initial_state is stored.initial_state
    with pytest.raises(ValueError, match="stored for the first row"):
        relabelled(stored, np.ones(BATCH, int), *arguments)
