"""Hindsight as a run configures it: goals and their reward found by name, unrolls cut out of windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aioseed_gymnasium.reach import goal_reward

from aioseed.errors import ConfigError, PluginError
from aioseed.experience.hindsight import Hindsight
from aioseed.experience.layout import allocate_columns
from aioseed.experience.replay.config import HindsightConfig
from aioseed.specs import ArraySpec, ObservationSpec, spec_leaves
from aioseed.types import UnrollColumns, UnrollLayout

PLACE = ArraySpec("float32", (2,))
OBSERVATION: ObservationSpec = {"achieved_goal": PLACE, "desired_goal": PLACE, "also": (PLACE, PLACE)}
REWARD = "aioseed_gymnasium.reach:goal_reward"


def layout(steps: int, *, state: tuple[ArraySpec, ...] = ()) -> UnrollLayout:
    return UnrollLayout(spec_leaves(OBSERVATION), PLACE, (), state, steps, 0)


def hindsight(steps: int, window: int, *, unrolls: UnrollLayout | None = None, **options: Any) -> Hindsight:
    config = HindsightConfig(**{"window_steps": window, "reward": REWARD, **options})
    return Hindsight(config, OBSERVATION, unrolls or layout(steps))


def window_of(steps: int, batch: int) -> UnrollColumns:
    """Return windows of a point that moves by 1 a step; its goal is far away."""
    columns = allocate_columns(layout(steps), batch, 0)
    achieved, desired = columns.observation[0], columns.observation[3]
    achieved[...] = np.arange(steps + 1)[:, None, None]
    desired[...] = 1000
    columns.reward[...] = -1
    return columns


def test_unrolls_begin_anywhere_in_the_window_and_their_goals_are_reached_in_it() -> None:
    window = window_of(20, 500)
    found = hindsight(1, 20, probability=1.0)(window, np.random.default_rng(0))
    begins, goals = found.observation[0][0, :, 0], found.observation[3][0, :, 0]
    assert set(begins) == set(range(20)), "the last transition too"
    assert np.all(goals > begins) and np.all(goals <= 20)
    reached = goals == begins + 1
    np.testing.assert_array_equal(found.reward[1], np.where(reached, 0, -1))
    assert 0.05 < reached.mean() < 0.5


def test_only_a_share_of_the_goals_is_replaced_and_nothing_else() -> None:
    window = window_of(20, 1000)
    found = hindsight(2, 20, probability=0.8)(window, np.random.default_rng(0))
    assert abs(np.mean(found.observation[3][0, :, 0] != 1000) - 0.8) < 0.05
    assert np.all(found.observation[1] == 0) and np.all(found.observation[2] == 0)
    assert np.all(window.observation[3] == 1000)


def test_it_is_a_function_of_the_window_and_the_generator() -> None:
    made, window = hindsight(3, 9), window_of(9, 8)
    one, other = (made(window, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.observation[3], other.observation[3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hindsight(5, 4), r"window_steps is 4, but unrolls of 5 steps"),
        (
            lambda: hindsight(5, 6, unrolls=layout(5, state=(PLACE,))),
            r"window_steps must be .*, 5: this agent remembers",
        ),
        (
            lambda: hindsight(5, 6, unrolls=layout(5)._replace(overlap_steps=2)),
            r"window_steps must be .*, 5: this agent remembers",
        ),
        (lambda: hindsight(1, 2, achieved="achieved"), r'achieved: the observation has no array "achieved"'),
        (lambda: hindsight(1, 2, desired="also"), r'desired: the observation has no array "also"'),
        (lambda: hindsight(1, 2, reward="aioseed_gymnasium.reach:RADIUS"), "is no function"),
    ],
)
def test_what_cannot_work_is_told(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_reward_that_is_not_there_is_told() -> None:
    with pytest.raises(PluginError, match="did you mean"):
        hindsight(1, 2, reward="aioseed_gymnasium.reach:goal_rewards")


def test_goals_that_cannot_be_compared_are_told() -> None:
    config = HindsightConfig(window_steps=2, reward=REWARD)
    other: ObservationSpec = {"achieved_goal": PLACE, "desired_goal": ArraySpec("float32", (3,))}
    with pytest.raises(ConfigError, match="different shape"):
        Hindsight(config, other, layout(1))
    with pytest.raises(ConfigError, match='no array "achieved_goal"'):
        Hindsight(config, PLACE, layout(1))


def test_an_unroll_as_long_as_its_window_keeps_its_recurrent_state() -> None:
    state = ArraySpec("float32", (1,))
    columns = allocate_columns(layout(4, state=(state,)), 3, 3)
    columns.initial_state[0][:, 0] = [1, 2, 3]
    found = hindsight(4, 4, unrolls=layout(4, state=(state,)))(columns, np.random.default_rng(0))
    assert found.initial_state[0][:, 0].tolist() == [1, 2, 3] and found.flags.shape == (5, 3)


def test_the_reward_is_that_of_the_environment() -> None:
    assert goal_reward(np.zeros((1, 2)), np.zeros((1, 2))).dtype == np.float32
