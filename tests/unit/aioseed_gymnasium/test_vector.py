"""Vector environments in columns: NEXT_STEP as it comes, resets of rows, rebuilds, and modes that are refused."""

from __future__ import annotations

import logging

import gymnasium
import numpy as np
import pytest
from aioseed_gymnasium.options import GymnasiumOptions
from aioseed_gymnasium.vector import VectorEnvironment
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from aioseed.errors import ConfigError, EnvironmentFailed
from aioseed.types import FIRST, TERMINATED, TRUNCATED


class Counter(VectorEnv):
    """Count steps in every row; row i ends after `lengths[i]` steps. Knows only how to reset as a whole."""

    def __init__(self, lengths=(2, 4), mode=AutoresetMode.NEXT_STEP, change=lambda env, result: result):
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.num_envs = len(lengths)
        self.single_observation_space = spaces.Dict(
            n=spaces.Discrete(99, start=5), box=spaces.Box(0, 99, (1,), np.float64)
        )
        self.single_action_space = spaces.Discrete(4, start=1)
        self.lengths, self.change = np.array(lengths), change
        self.count = np.zeros(self.num_envs, int)
        self.done = np.zeros(self.num_envs, bool)
        self.seeds, self.taken, self.steps, self.closings = [], [], 0, 0

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.count[:] = 0
        self.done[:] = False
        return self.observe(), {}

    def step(self, actions):
        self.taken.append(actions)
        self.steps += 1
        self.count = np.where(self.done, 0, self.count + 1)
        reward = np.where(self.done, 0.0, 1.0)
        terminated = (self.count == self.lengths) & (self.lengths % 2 == 0)
        truncated = (self.count == self.lengths) & (self.lengths % 2 == 1)
        self.done = terminated | truncated
        return self.change(self, (self.observe(), reward, terminated, truncated, {}))

    def observe(self):
        return {"n": self.count + 5, "box": self.count[:, None].astype(float)}

    def close(self, **kwargs):
        self.closings += 1


def made(build, count=2, **options):
    return VectorEnvironment(build, count, "Test-v0", GymnasiumOptions(**options))


def counts(run):
    box, n = run.columns.observation
    assert box[:, 0].tolist() == n.tolist(), "both leaves say the same, counted from 0"
    return n.tolist()


def test_rows_follow_the_environment_and_first_rows_carry_their_flag(group):
    run = group(made(lambda: Counter((2, 3))))
    run.reset()
    assert (run.flags, run.rewards, counts(run)) == ([FIRST, FIRST], [0, 0], [0, 0])
    seen = []
    for _ in range(5):
        run.step()
        seen.append((run.flags, run.rewards, counts(run)))
    assert seen == [
        ([0, 0], [1, 1], [1, 1]),
        ([TERMINATED, 0], [1, 1], [2, 2]),
        ([FIRST, TRUNCATED], [0, 1], [0, 3]),
        ([0, FIRST], [1, 0], [1, 0]),
        ([TERMINATED, 0], [1, 1], [2, 1]),
    ]


def test_a_row_that_terminates_and_truncates_is_terminated(group):
    def both(env, result):
        observation, reward, terminated, _, info = result
        return observation, reward, terminated, terminated, info

    run = group(made(lambda: Counter(change=both)))
    run.reset()
    run.step()
    run.step()
    assert run.flags == [TERMINATED, 0]


def test_actions_get_the_start_of_the_space(group):
    env = Counter()
    run = group(made(lambda: env))
    run.reset()
    run.step(0, 3)
    assert env.taken[0].tolist() == [1, 4]
    assert env.taken[0].dtype == np.int64


def test_the_seed_of_the_whole_is_made_of_the_seeds_of_its_rows(group):
    env = Counter()
    run = group(made(lambda: env))
    for seeds in ([1, 2], [1, 2], [1, 3]):
        run.reset(seeds=seeds)
    assert env.seeds[0] == env.seeds[1] != env.seeds[2]


def test_resetting_some_rows_of_what_resets_as_a_whole_begins_the_others_anew(group):
    run = group(made(lambda: Counter((9, 9))))
    run.reset()
    run.step()
    run.reset([1], [5])
    assert (run.flags, run.rewards, counts(run)) == ([0, FIRST], [1, 0], [1, 0])
    run.step()
    assert (run.flags, run.rewards) == ([FIRST, 0], [0, 1])
    run.step()
    assert run.flags == [0, 0]


def test_a_sync_vector_environment_resets_single_rows(group, ladder):
    run = group(made(lambda: SyncVectorEnv([lambda: ladder(length=9)] * 2)))
    run.reset(seeds=[7, 8])
    assert run.observations == [[7, 0, 0], [8, 0, 0]]
    run.step(1, 1)
    run.reset([1], [99])
    assert run.observations == [[7, 1, 1], [99, 0, 0]]
    run.step(2, 2)
    assert run.flags == [0, 0]
    assert run.observations == [[7, 2, 2], [99, 1, 2]]


def test_a_row_that_was_final_and_is_reset_is_not_first_twice(group):
    run = group(made(lambda: Counter((2, 2))))
    run.reset()
    run.step()
    run.step()
    run.reset()
    run.step()
    assert run.flags == [0, 0]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused_in_a_sentence_and_closed(mode):
    env = Counter(mode=mode)
    with pytest.raises(ConfigError, match=rf"resets in the mode {mode.name}, and only NEXT_STEP .*vectorized=false"):
        made(lambda: env)
    assert env.closings == 1


def test_an_environment_that_names_no_mode_is_taken_for_one_of_gymnasium_1_0():
    assert made(lambda: Counter(mode=None)).count == 2


def test_another_number_of_environments_is_refused():
    with pytest.raises(ConfigError, match="Test-v0 made 2 environments where 3 were asked for"):
        made(Counter, count=3)


def fails_in_step(number):
    def change(env, result):
        if env.steps == number:
            raise RuntimeError("boom")
        return result

    return change


def test_an_environment_that_raises_is_rebuilt_and_every_row_is_first(group, caplog):
    built = []

    def build():
        built.append(Counter(change=fails_in_step(2 if not built else 0)))
        return built[-1]

    run = group(made(build))
    run.reset()
    run.step()
    with caplog.at_level(logging.WARNING):
        run.step()
    assert (run.flags, run.rewards, counts(run)) == ([FIRST, FIRST], [0, 0], [0, 0])
    assert "the vector environment Test-v0 failed and is built anew (1 of 3): RuntimeError: boom" in caplog.text
    assert built[0].closings == 1
    assert built[1].seeds[0] not in (None, built[0].seeds[0])
    run.step()
    assert run.flags == [0, 0]


def test_a_rebuild_after_a_final_row_gives_one_first_row(group):
    changes = iter((fails_in_step(3), fails_in_step(0)))
    run = group(made(lambda: Counter((2, 9), change=next(changes))))
    run.reset()
    flags = []
    for _ in range(4):
        run.step()
        flags.append(run.flags)
    assert flags == [[0, 0], [TERMINATED, 0], [FIRST, FIRST], [0, 0]]


class FailsToReset(Counter):
    """Fail in its second reset: with an exception, or with what it observes."""

    def __init__(self, observe_instead=None):
        super().__init__((9, 9))
        self.observe_instead = observe_instead

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        if len(self.seeds) < 2:
            return observation, info
        if self.observe_instead is None:
            raise RuntimeError("boom")
        return {**observation, "box": np.full((2, 1), self.observe_instead)}, info


@pytest.mark.parametrize("observe_instead", [None, np.nan])
def test_a_failure_while_some_rows_are_reset_begins_all_rows_anew(group, observe_instead):
    envs = iter((FailsToReset(observe_instead), Counter((9, 9))))
    run = group(made(lambda: next(envs)))
    run.reset()
    run.step()
    run.reset([1], [5])
    assert (run.flags, run.rewards, counts(run)) == ([0, FIRST], [1, 0], [1, 0])
    run.step()
    assert run.flags == [FIRST, 0]


def test_the_failures_of_a_life_are_bounded(group):
    run = group(made(lambda: Counter(change=fails_in_step(1)), max_rebuilds=1))
    run.reset()
    run.step()
    with pytest.raises(
        EnvironmentFailed, match=r"the vector environment Test-v0 failed 2 times, the last time: RuntimeError"
    ):
        run.step()


def test_numbers_that_are_not_finite_cost_a_rebuild(group):
    def change(env, result):
        result[0]["box"][0] = np.nan
        return result

    changes = iter((change, lambda env, result: result))
    run = group(made(lambda: Counter(change=next(changes))))
    run.reset()
    run.step()
    assert run.flags == [FIRST, FIRST]
    assert np.isfinite(run.columns.observation[0]).all()


def with_observation(observation):
    return lambda env, result: (observation, *result[1:])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (with_observation({"n": np.zeros(2, int)}), "wrong observation: KeyError: 'box'"),
        (
            with_observation({"n": np.zeros((2, 1), int), "box": np.zeros((2, 1))}),
            r"observation\.n has the shape \(2, 1\)",
        ),
        (with_observation({"n": np.zeros(2), "box": np.zeros((2, 1))}), "wrong observation: .*Cannot cast"),
        (lambda env, result: (result[0], np.zeros(3), *result[2:]), "wrong reward or flag"),
        (lambda env, result: (*result[:2], np.array(["a", "b"]), *result[3:]), "wrong reward or flag"),
    ],
)
def test_what_is_not_in_the_spaces_ends_it(group, change, fault):
    run = group(made(lambda: Counter(change=change)))
    run.reset()
    with pytest.raises(EnvironmentFailed, match=fault):
        run.step()


def test_close_is_idempotent():
    env = Counter()
    run = made(lambda: env)
    run.close()
    run.close()
    assert env.closings == 1


def test_cartpoles_own_vector_environment_gives_what_gymnasium_gives(group):
    ours = made(lambda: gymnasium.make_vec("CartPole-v1", 8, vectorization_mode="vector_entry_point"), count=8)
    theirs = gymnasium.make_vec("CartPole-v1", 8, vectorization_mode="vector_entry_point")
    run = group(ours)
    run.reset()
    expected, _ = theirs.reset(seed=ours._seed)
    rng = np.random.default_rng(0)
    firsts = 0
    for _ in range(60):
        np.testing.assert_array_equal(run.columns.observation[0], expected)
        actions = rng.integers(0, 2, 8)
        expected, reward, terminated, _, _ = theirs.step(actions)
        run.step(*actions)
        np.testing.assert_array_equal(run.columns.reward, reward)
        np.testing.assert_array_equal(run.columns.flags & TERMINATED != 0, terminated)
        firsts += int((run.columns.flags & FIRST).sum())
    assert firsts > 0
