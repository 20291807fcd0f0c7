"""Hindsight goals come from the same episode and from later, whatever the borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.experience.hindsight import GoalLeaves, relabelled
from aioseed.types import FIRST, UnrollColumns

ACHIEVED, DESIRED = 1, 2
GOALS = GoalLeaves(ACHIEVED, DESIRED)


def reward_of(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Return what is not the same from goal to place as from place to goal."""
    return -np.abs(achieved - 2 * desired).sum(-1).astype(np.float32)


def window(rows: int, batch: int, borders: int) -> UnrollColumns:
    """Return rows whose achieved goal is (row, column), so that each goal tells where it was reached."""
    generator = np.random.default_rng(borders)
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(batch), indexing="ij"), axis=-1).astype(np.float32)
    desired = generator.normal(size=(rows, batch, 2)).astype(np.float32)
    flags = (generator.random((rows, batch)) < 0.25).astype(np.uint8) * FIRST
    rest = generator.normal(size=(rows, batch)).astype(np.float32)
    return UnrollColumns(
        observation=(places[..., 0], places, desired),
        reward=np.where(flags & FIRST, 0, rest + reward_of(places, desired)).astype(np.float32),
        flags=flags,
        previous_action=places,
        action=places,
        policy_version=places[..., 0].astype(np.int32),
        extras=(places,),
        initial_state=(),
        importance=np.ones(places.shape[1], np.float32),
    )


@st.composite
def cases(draw):
    rows, batch = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    steps = draw(st.integers(1, rows - 1))
    starts = np.array([draw(st.integers(0, rows - 1 - steps)) for _ in range(batch)])
    return window(rows, batch, draw(st.integers(0, 10_000))), starts, steps


def episode_of(flags: np.ndarray) -> np.ndarray:
    return np.cumsum(flags & FIRST, axis=0)


@given(case=cases(), seed=st.integers(0, 1000))
def test_goals_are_reached_later_in_the_same_episode_and_rewards_are_theirs(case, seed: int) -> None:
    stored, starts, steps = case
    found = relabelled(stored, starts, steps, GOALS, reward_of, 1.0, np.random.default_rng(seed))
    episodes = episode_of(stored.flags)
    for b, start in enumerate(starts):
        for t in range(steps + 1):
            row, (goal_row, goal_column) = start + t, found.observation[DESIRED][t, b].astype(int)
            assert goal_column == b and goal_row >= row and episodes[goal_row, b] == episodes[row, b]
            if t < steps and not found.flags[t + 1, b] & FIRST:
                after = found.observation[DESIRED][t + 1, b]
                np.testing.assert_array_equal(found.observation[DESIRED][t, b], after)
                assert goal_row > row, "what a transition starts from is not its goal"
            if found.flags[t, b] & FIRST:
                assert found.reward[t, b] == 0
                continue
            place, old = stored.observation[ACHIEVED][row, b], stored.observation[DESIRED][row, b]
            wanted = stored.reward[row, b] - reward_of(place, old) + reward_of(place, found.observation[DESIRED][t, b])
            np.testing.assert_allclose(found.reward[t, b], wanted, atol=1e-4)


@given(case=cases(), seed=st.integers(0, 1000))
def test_everything_else_is_the_window_cut_and_the_window_itself_is_left_alone(case, seed: int) -> None:
    stored, starts, steps = case
    before = [np.copy(leaf) for leaf in (*stored.observation, stored.reward)]
    for probability in (0.0, 1.0):
        found = relabelled(stored, starts, steps, GOALS, reward_of, probability, np.random.default_rng(seed))
        for b, start in enumerate(starts):
            cut = slice(start, start + steps + 1)
            np.testing.assert_array_equal(found.flags[:, b], stored.flags[cut, b])
            np.testing.assert_array_equal(found.action[:, b], stored.action[cut, b])
            np.testing.assert_array_equal(found.observation[ACHIEVED][:, b], stored.observation[ACHIEVED][cut, b])
            if probability == 0:
                np.testing.assert_array_equal(found.observation[DESIRED][:, b], stored.observation[DESIRED][cut, b])
                np.testing.assert_array_equal(found.reward[:, b], stored.reward[cut, b])
    for leaf, copy in zip((*stored.observation, stored.reward), before, strict=True):
        np.testing.assert_array_equal(leaf, copy)


@pytest.mark.parametrize("probability", [0.4, 1.0])
def test_every_later_row_of_the_episode_is_as_likely_a_goal_the_last_one_too(probability: float) -> None:
    columns, rows, border = 20_000, 8, 5
    stored = window(rows, columns, 0)
    stored.flags[...] = 0
    stored.flags[border] = FIRST
    found = relabelled(
        stored, np.zeros(columns, int), 1, GOALS, reward_of, probability, np.random.default_rng(0)
    ).observation[DESIRED][0, :, 0]
    replaced = found[(stored.observation[DESIRED][0, :, 0] != found)].astype(int)
    counts = np.bincount(replaced, minlength=rows)
    expected = columns * probability / (border - 1)
    assert not counts[0] and not counts[border:].any()
    assert np.all(np.abs(counts[1:border] - expected) < 5 * np.sqrt(expected))


@pytest.mark.parametrize("starts", [[0, -1], [0, 3], [4, 4]])
def test_an_unroll_beyond_its_window_is_refused(starts: list[int]) -> None:
    relabelled(window(6, 2, 0), np.array([0, 2]), 3, GOALS, reward_of, 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="does not fit"):
        relabelled(window(6, 2, 0), np.array(starts), 3, GOALS, reward_of, 1.0, np.random.default_rng(0))


def test_an_unroll_with_a_recurrent_state_begins_with_its_window() -> None:
    stored = window(6, 2, 0)._replace(initial_state=(np.zeros((2, 1), np.float32),))
    with pytest.raises(ValueError, match="the first row of a window"):
        relabelled(stored, np.array([0, 1]), 3, GOALS, reward_of, 1.0, np.random.default_rng(0))
