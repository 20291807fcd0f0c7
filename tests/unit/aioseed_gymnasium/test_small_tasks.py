"""Catch, Cue and Reach: their rules, that Gymnasium's own checker accepts them, that the plugin makes them by name."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_gymnasium import plugin
from aioseed_gymnasium.catch import Catch
from aioseed_gymnasium.cue import Cue
from aioseed_gymnasium.reach import Reach, goal_reward
from gymnasium.utils.env_checker import check_env


def returns_of(env, policy, episodes: int) -> list[float]:
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        total, over, step = 0.0, False, 0
        first = observation
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(first, observation, step))
            total, over, step = total + reward, terminated or truncated, step + 1
        returns.append(total)
    return returns


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env", [Catch(), Cue(), Reach()], ids=["catch", "cue", "reach"])
def test_gymnasium_accepts_it(env) -> None:
    check_env(env, skip_render_check=True)


def test_who_follows_the_ball_catches_it_and_who_stays_rarely_does() -> None:
    def follow(first, board, step) -> int:
        ball = int(np.argmax(board[:-1].max(axis=0)))
        return int(np.sign(ball - int(np.argmax(board[-1])))) + 1

    assert returns_of(Catch(), follow, 50) == [1.0] * 50
    stays = returns_of(Catch(), lambda *_: 1, 300)
    assert abs(np.mean(stays) - (2 / 5 - 1)) < 0.15


def test_a_cue_is_worth_1_to_who_remembers_and_a_share_to_who_does_not() -> None:
    assert returns_of(Cue(), lambda first, now, step: int(np.argmax(first[:-1])), 30) == [1.0] * 30
    forgetful = returns_of(Cue(cues=4), lambda first, now, step: 0, 400)
    assert abs(np.mean(forgetful) - 0.25) < 0.08


def test_a_cue_is_asked_for_exactly_as_late_as_promised_and_shown_never_again() -> None:
    env = Cue(cues=3, delay_steps=7)
    observation, _ = env.reset(seed=1)
    shown = [observation]
    over = False
    while not over:
        observation, _, over, _, _ = env.step(0)
        shown.append(observation)
    assert [seen[-1] for seen in shown] == [0.0] * 7 + [1.0, 0.0]
    assert shown[0][:-1].sum() == 1 and not np.any(np.array(shown[1:])[:, :-1])


def test_who_goes_straight_reaches_the_goal_and_stays_while_chance_hardly_ever_gets_there() -> None:
    def straight(first, now, step):
        return np.clip((now["desired_goal"] - now["achieved_goal"]) / 0.25, -1, 1)

    def anyhow(first, now, step):
        return generator.uniform(-1, 1, 4)

    generator = np.random.default_rng(0)
    assert np.mean(returns_of(Reach(), straight, 50)) > -6
    assert np.mean(returns_of(Reach(), anyhow, 100)) < -24.5


def test_reach_pays_by_the_goal_alone_and_ends_by_time_alone() -> None:
    env = Reach(dimensions=2, steps=3)
    env.reset(seed=0)
    seen = [env.step(np.ones(2, np.float32)) for _ in range(3)]
    assert [row[2:4] for row in seen] == [(False, False), (False, False), (False, True)]
    assert [row[1] for row in seen] == [goal_reward(row[0]["achieved_goal"], row[0]["desired_goal"]) for row in seen]
    places = np.array([[0, 0], [0, 0.19], [0, 0.21]], np.float32)
    assert goal_reward(places, np.zeros((3, 2), np.float32)).tolist() == [0, 0, -1]


@pytest.mark.parametrize("wrong", [{"dimensions": 0}, {"steps": 0}, {"speed": 0}, {"speed": 3}])
def test_reach_of_no_sense_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="there must be"):
        Reach(**wrong)


@pytest.mark.parametrize("task", ["catch", "cue", "reach"])
def test_the_plugin_makes_it_by_name(task: str) -> None:
    made = plugin.make(f"aioseed_gymnasium.{task}:make", {}, 2)
    assert made.count == 2
    made.close()
