"""The real engine; run by ``make football``, skipped where gfootball is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_football import plugin
from aioseed_football.options import ACTIONS
from aioseed_football.scenarios import SCENARIOS

from aioseed.testing.environment_kit import check_env
from aioseed.types import FINAL, FIRST, StepColumns

pytest.importorskip("gfootball")
# gym 0.25 and what it imports warn about their age.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

SHOT = 12


def columns_of(env):
    leaf = env.spec.observation
    return StepColumns(
        *(np.zeros(env.count, dtype) for dtype in ("u4", "u8", "u4", "u1", "f4")),
        np.zeros((env.count, 1), np.float32),
        (np.zeros((env.count, *leaf.shape), leaf.dtype),),
    )


def test_the_scenarios_are_those_of_the_engine():
    from gfootball.env.scenario_builder import all_scenarios

    assert set(SCENARIOS) == set(all_scenarios()) - {"tests"}


@pytest.mark.parametrize("observation", ["smm", "simple115"])
def test_the_kit_finds_nothing_wrong(observation):
    options = {"observation": observation, "reward": "checkpoints"}
    check_env(lambda count: plugin.make("academy_empty_goal_close", options, count), steps=60)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_is_played(scenario):
    env = plugin.make(scenario, {}, 1)
    columns = columns_of(env)
    env.reset(np.array([0]), [1], columns)
    assert columns.flags[0] == FIRST
    for action in range(ACTIONS):
        env.step(np.array([action], np.int32), columns)
    # All four layers are there: two teams, the ball and the active player.
    assert np.bitwise_or.reduce(columns.observation[0], axis=None) == 0b1111_0000
    env.close()


def test_who_runs_to_the_empty_goal_and_shoots_scores():
    env = plugin.make("academy_empty_goal_close", {"observation": "simple115"}, 1)
    columns = columns_of(env)
    env.reset(np.array([0]), [1], columns)
    score = 0.0
    for _ in range(400):
        env.step(np.array([SHOT], np.int32), columns)
        score += float(columns.metrics[0, 0])
        if columns.flags[0] & FINAL:
            break
    assert score == float(columns.reward[0]) == 1.0


def test_a_minimap_holds_one_ball_one_active_player_and_a_team():
    env = plugin.make("11_vs_11_stochastic", {}, 1)
    columns = columns_of(env)
    env.reset(np.array([0]), [1], columns)
    layers = np.unpackbits(columns.observation[0][0], axis=-1, count=4)
    assert layers.shape == (72, 96, 4)
    assert layers[..., 2].sum() == layers[..., 3].sum() == 1
    assert 2 <= layers[..., 0].sum() <= 11
