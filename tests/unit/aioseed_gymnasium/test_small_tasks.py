"""Catch and Cue: their rules, that Gymnasium's own checker accepts them, and that the plugin makes them by name."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_gymnasium import plugin
from aioseed_gymnasium.catch import Catch
from aioseed_gymnasium.cue import Cue
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
@pytest.mark.parametrize("env", [Catch(), Cue()], ids=["catch", "cue"])
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


@pytest.mark.parametrize("name", ["aioseed_gymnasium.catch:make", "aioseed_gymnasium.cue:make"])
def test_the_plugin_makes_it_by_name(name: str) -> None:
    made = plugin.make(name, {}, 2)
    assert made.count == 2
    made.close()
