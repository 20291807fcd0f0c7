"""Both engines play the same game to the bit, and what their options say is what happens."""

from __future__ import annotations

import sys
from itertools import pairwise

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aioseed_atari import GAMES, atari57, plugin
from aioseed_atari.ale import Game, brightest, shrunk
from aioseed_atari.options import AtariOptions

from aioseed.errors import ConfigError, PluginError
from aioseed.nets.frame_stack import frame_stack
from aioseed.specs import zeros
from aioseed.types import FINAL, FIRST, TERMINATED, TRUNCATED, BatchEnvironment, StepColumns

QUICK = {"noop_max": 1, "size": 84}


def columns_of(env: BatchEnvironment) -> StepColumns:
    count = env.count
    return StepColumns(
        slot=np.zeros(count, np.uint32),
        epoch=np.zeros(count, np.uint64),
        sequence=np.zeros(count, np.uint32),
        flags=np.zeros(count, np.uint8),
        reward=np.zeros(count, np.float32),
        metrics=np.zeros((count, len(env.metrics)), np.float32),
        observation=(zeros(env.spec.observation, (count,)),),
    )


def started(engine: str, game: str, count: int = 1, **options) -> tuple[BatchEnvironment, StepColumns]:
    env = plugin.make(game, {**QUICK, **options, "engine": engine}, count)
    columns = columns_of(env)
    env.reset(np.arange(count), [7 + row for row in range(count)], columns)
    return env, columns


def test_engines_agree_on_everything_but_the_picture_after_the_end():
    both = [started(engine, "Breakout", count=2) for engine in ("ale", "envpool")]
    assert both[0][0].spec == both[1][0].spec and both[0][0].metrics == both[1][0].metrics
    generator, ended = np.random.default_rng(0), 0
    for _ in range(260):
        actions = generator.integers(0, 4, 2).astype(np.int32)
        for env, columns in both:
            env.step(actions, columns)
        ours, theirs = (columns for _, columns in both)
        for name in ("flags", "reward", "metrics"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        going = (ours.flags & FINAL) == 0
        np.testing.assert_array_equal(ours.observation[0][going], theirs.observation[0][going])
        ended += np.count_nonzero(~going)
    assert ended  # so that games after the first one were compared too
    for env, _ in both:
        env.close()


@pytest.mark.parametrize("engine", ["ale", "envpool"])
def test_a_lost_life_ends_the_episode_and_the_score_goes_on(engine):
    env, columns = started(engine, "Breakout", terminal_on_life_loss=True)
    generator, flags, lives_lost, score, carried = np.random.default_rng(1), [], 0, 0.0, 0.0
    for _ in range(300):
        env.step(generator.integers(0, 4, 1).astype(np.int32), columns)
        flags.append(int(columns.flags[0]))
        score += float(columns.reward[0])
        if flags[-1] & TERMINATED:
            assert float(columns.metrics[0, 0]) == score
            lives_lost += 1
            carried = max(carried, score - float(columns.reward[0]))
            score = 0.0 if lives_lost % 5 == 0 else score  # five lives a game
    env.close()
    assert lives_lost > 5 and carried > 0  # so that a score was carried from life to life in the second game
    assert {then for now, then in pairwise(flags) if now & TERMINATED} == {int(FIRST)}


@pytest.mark.parametrize("engine", ["ale", "envpool"])
def test_the_cap_cuts_a_game_that_goes_on(engine):
    env, columns = started(engine, "Pong", max_frames=40)
    flags = []
    for _ in range(12):
        env.step(np.zeros(1, np.int32), columns)
        flags.append(int(columns.flags[0]))
    env.close()
    cut = flags.index(int(TRUNCATED))
    assert cut in (8, 9) and flags[cut + 1] == FIRST and not any(flags[:cut])


@pytest.mark.parametrize("engine", ["ale", "envpool"])
def test_the_full_action_set_has_18_and_seeds_choose_the_start(engine):
    env, columns = started(engine, "SpaceInvaders", count=3, full_action_space=True, noop_max=30)
    assert env.spec.action.sizes == (18,)
    starts = {columns.observation[0][row].tobytes() for row in range(3)}
    env.close()
    again, fresh = started(engine, "SpaceInvaders", count=3, full_action_space=True, noop_max=30)
    again.close()
    np.testing.assert_array_equal(fresh.observation[0], columns.observation[0])
    assert len(starts) > 1


def test_frames_are_joined_and_made_small():
    dark, light = np.zeros((210, 160), np.uint8), np.zeros((210, 160), np.uint8)
    dark[0, 0], light[0, 1] = 8, 9
    assert brightest([dark, light])[0, :2].tolist() == [8, 9]
    assert brightest([dark]) is not dark and brightest([dark])[0, 0] == 8
    blocks = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2), 105, 0), 80, 1)
    assert shrunk(blocks, 2)[..., 0].tolist() == [[0, 1], [2, 3]]


def test_a_reset_goes_on_with_a_game_and_a_seed_begins_another():
    fresh, played, still = Game("Pong", AtariOptions(**QUICK)), Game("Pong", AtariOptions(**QUICK)), np.int32(0)
    (first,) = fresh.reset(7)
    played.reset(3)
    while not (score := played.step(still).metrics[0]):  # until the opponent has a point
        pass
    played.reset(None)
    assert played.step(still).metrics[0] == score
    np.testing.assert_array_equal(played.reset(7)[0], first)
    ours, theirs = played.step(still), fresh.step(still)
    np.testing.assert_array_equal(ours.observation[0], theirs.observation[0])
    assert ours.metrics[0] == 0


def test_an_action_is_repeated_and_sticky_where_asked():
    plain = Game("Pong", AtariOptions(**QUICK))
    sticky = Game("Pong", AtariOptions(**QUICK, repeat_action_probability=0.25))
    for game in (plain, sticky):
        game.reset(3)
    before = plain._env.unwrapped.ale.getEpisodeFrameNumber()
    plain.step(np.int32(2))
    assert plain._env.unwrapped.ale.getEpisodeFrameNumber() - before == 4
    assert sticky._env.unwrapped.ale.getFloat("repeat_action_probability") == 0.25
    for game in (plain, sticky):
        game.close()


class _Plain(gymnasium.Env):
    """A game as a Gymnasium environment, for the wrapper that stacks in the actor."""

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(6)

    def __init__(self) -> None:
        self.game = Game("Pong", AtariOptions(**QUICK))

    def reset(self, *, seed=None, options=None):
        return self.game.reset(seed)[0], {}

    def step(self, action):
        outcome = self.game.step(np.int32(action))
        return outcome.observation[0], outcome.reward, outcome.terminated, outcome.truncated, {}


@pytest.mark.parametrize(("pad", "theirs"), [("first", "reset"), ("zero", "zero")])
def test_stacking_on_the_learner_is_stacking_in_the_actor_bit_for_bit(pad, theirs):
    wrapped = gymnasium.wrappers.FrameStackObservation(_Plain(), 4, padding_type=theirs)
    alone = _Plain()
    transform = frame_stack(plugin.make("Pong", {**QUICK, "engine": "ale"}, 1).spec.observation, n=4, pad=pad)
    step = jax.jit(transform.step)
    state = jax.tree.map(lambda leaf: leaf[None], transform.initial_state())
    generator = np.random.default_rng(2)
    for t in range(24):
        first = t in (0, 9, 10)
        if first:
            (stacked, _), (frame, _) = wrapped.reset(seed=t), alone.reset(seed=t)
        else:
            action = int(generator.integers(6))
            stacked, frame = wrapped.step(action)[0], alone.step(action)[0]
        found, state = step(transform.init(), state, jnp.asarray(frame)[None], jnp.asarray([first]))
        np.testing.assert_array_equal(found[0], np.concatenate(list(stacked), axis=-1))


def test_names_and_options_that_are_wrong_are_said_so(monkeypatch):
    with pytest.raises(ConfigError, match=r'there is no Atari game "Pongg" .did you mean "Pong"'):
        plugin.make("Pongg", {"engine": "ale"}, 1)
    with pytest.raises(ConfigError, match="frame_skp is not a known key"):
        plugin.make("Pong", {"frame_skp": 4}, 1)
    for engine, module, extra in (("ale", "ale_py", "atari"), ("envpool", "envpool", "envpool")):
        for name in [name for name in sys.modules if name.startswith(("aioseed_atari.ale", "aioseed_atari.pool"))]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(PluginError, match=rf'pip install "aioseed\[{extra}\]"'):
            plugin.make("Pong", {"engine": engine}, 1)


def test_which_engine_plays_is_no_part_of_the_task():
    tasks = [plugin.task("Pong", {"engine": engine, "threads": 2}) for engine in ("ale", "envpool")]
    assert tasks[0] == tasks[1] and tasks[0]["frame_skip"] == 4
    assert plugin.task("Pong", {"full_action_space": True}) != tasks[0]


def test_atari57_has_57_games_that_the_engine_knows_and_scores():
    from aioseed_atari.ale import known_games

    assert len(atari57.tasks) == len(GAMES) == 57 and not atari57.capped
    assert set(GAMES) <= known_games()
    pong = next(task for task in atari57.tasks if task.name == "Pong")
    assert (pong.overrides, pong.random_score, pong.human_score) == (("environment.name=Pong",), -20.7, 14.6)
    assert atari57.score_metric == "environment/score"
