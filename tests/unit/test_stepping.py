"""Single environments as one group: resets after final rows, rebuilds with a bound, and checks of what comes back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aioseed.errors import EnvironmentFailed
from aioseed.specs import ArraySpec, discrete
from aioseed.stepping import Outcome, SequentialEnvironments
from aioseed.testing.environment_kit import check_env
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec, StepColumns

SPEC = EnvironmentSpec({"count": ArraySpec("float32", (2,)), "last": ArraySpec("uint8", ())}, discrete(3))
METRICS = (EnvironmentMetric("twice", "sum"),)


class Count:
    """Observe [seed-drawn number, step] and the last action; end after `length` steps."""

    def __init__(self, length=3, fault=None, truncates=False):
        self.length, self.fault, self.truncates = length, fault, truncates
        self.random = np.random.default_rng()
        self.start, self.count, self.closed = 0, 0, 0

    def reset(self, seed):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.start, self.count = int(self.random.integers(1000)), 0
        return self.observe(0)

    def step(self, action):
        self.count += 1
        ended = self.count >= self.length
        reward = self.count / 2
        return Outcome(self.observe(int(action)), reward, ended and not self.truncates, ended, (2 * reward,))

    def close(self):
        self.closed += 1

    def observe(self, action):
        if self.fault is not None and (instead := self.fault(self)) is not None:
            return instead
        return (np.array([self.start, self.count], np.float32), np.array(action, np.uint8))


def group_of(build, count=2, **options):
    env = SequentialEnvironments(build, count, "Count", SPEC, METRICS, **options)
    leaves = tuple(
        np.full((count, *leaf.shape), 77, leaf.dtype) for leaf in (SPEC.observation["count"], SPEC.observation["last"])
    )
    columns = StepColumns(
        *(np.zeros(count, dtype) for dtype in ("u4", "u8", "u4", "u1")),
        np.full(count, 77, np.float32),
        np.full((count, 1), 77, np.float32),
        leaves,
    )
    return env, columns


def test_the_kit_finds_nothing_wrong():
    check_env(lambda count: group_of(Count, count)[0])


def test_only_the_rows_that_were_asked_for_are_reset():
    env, columns = group_of(Count)
    env.reset(np.array([1]), [5], columns)
    assert columns.reward.tolist() == [77, 0]
    assert columns.flags[1] == FIRST
    assert columns.observation[0][0].tolist() == [77, 77]


@pytest.mark.parametrize(("truncates", "flag"), [(False, TERMINATED), (True, TRUNCATED)])
def test_a_final_row_an_ignored_action_and_a_first_row(truncates, flag):
    env, columns = group_of(lambda: Count(truncates=truncates))
    env.reset(np.array([0, 1]), [1, 2], columns)
    seen = []
    for action in (1, 2, 1, 2, 1):
        env.step(np.array([action, action], np.int32), columns)
        seen.append((int(columns.flags[0]), float(columns.reward[0]), float(columns.metrics[0, 0])))
    assert seen == [(0, 0.5, 1.0), (0, 1.0, 2.0), (flag, 1.5, 3.0), (FIRST, 0.0, 0.0), (0, 0.5, 1.0)]
    assert columns.observation[1].tolist() == [1, 1]


def test_an_environment_that_raises_is_built_anew_and_its_siblings_go_on():
    def fault(env):
        if env.count == 2 and env.length == 9:
            raise RuntimeError("the engine broke")

    lengths = iter((9, 5, 8))
    env, columns = group_of(lambda: Count(next(lengths), fault))
    env.reset(np.array([0, 1]), [1, 2], columns)
    for _ in range(2):
        env.step(np.array([0, 0], np.int32), columns)
    assert columns.flags.tolist() == [FIRST, 0]
    assert columns.reward.tolist() == [0.0, 1.0]
    assert columns.observation[0][:, 1].tolist() == [0, 2]


def test_more_failures_than_the_bound_end_it_with_the_engines_words():
    def fault(env):
        if env.count == 1:
            raise RuntimeError("the engine broke")

    env, columns = group_of(lambda: Count(fault=fault), max_rebuilds=1)
    env.reset(np.array([0, 1]), [1, 2], columns)
    env.step(np.array([0, 0], np.int32), columns)
    said = r"environment 0 \(Count\) failed 2 times, the last time: .*the engine broke"
    with pytest.raises(EnvironmentFailed, match=said):
        env.step(np.array([0, 0], np.int32), columns)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_costs_a_rebuild(bad):
    def fault(env):
        if env.count == 1:
            return (np.array([bad, 0], np.float32), np.array(0, np.uint8))
        return None

    env, columns = group_of(lambda: Count(fault=fault))
    env.reset(np.array([0, 1]), [1, 2], columns)
    env.step(np.array([0, 0], np.int32), columns)
    assert columns.flags.tolist() == [FIRST, FIRST]
    assert np.isfinite(columns.observation[0]).all()


@pytest.mark.parametrize(("reward", "metric"), [(1e39, 0.0), (np.nan, 0.0), (0.0, np.inf), (0.0, -1e39)])
def test_a_reward_or_metric_that_is_not_finite_as_it_travels_costs_a_rebuild(reward, metric):
    class Wild(Count):
        def step(self, action):
            return super().step(action)._replace(reward=reward, metrics=(metric,))

    env, columns = group_of(Wild, count=1)
    env.reset(np.array([0]), [1], columns)
    env.step(np.array([0], np.int32), columns)
    assert columns.flags.tolist() == [FIRST]
    assert (columns.reward.tolist(), columns.metrics.tolist()) == ([0.0], [[0.0]])


@pytest.mark.parametrize(
    "wrong",
    [
        (np.zeros(3, np.float32), np.array(0, np.uint8)),
        (np.zeros(2, np.float64), np.array(0, np.uint8)),
    ],
)
def test_an_observation_that_is_not_its_spec_is_no_rebuild_but_an_error(wrong):
    env, columns = group_of(lambda: Count(fault=lambda env: wrong))
    with pytest.raises(EnvironmentFailed, match=r"environment 0 \(Count\) returned a wrong observation: .* expected"):
        env.reset(np.array([0, 1]), [1, 2], columns)


BOTH = (np.zeros(2, np.float32), np.array(0, np.uint8))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (BOTH[0], "float32[2] where a tuple of arrays is expected, one for each leaf of the spec, here 2"),
        (BOTH[:1], "a tuple of 1 where a tuple of arrays is expected"),
        ([*BOTH], "observation: list where a tuple of arrays is expected"),
        ((BOTH[0], 0), "observation: int where uint8[] is expected"),
    ],
)
def test_an_observation_of_another_form_is_told_in_a_sentence(wrong, said):
    env, columns = group_of(lambda: Count(fault=lambda env: wrong))
    with pytest.raises(EnvironmentFailed, match=re.escape(said)):
        env.reset(np.array([0, 1]), [1, 2], columns)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ()}, "returned 0 metrics where 1 are declared"),
        ({"metrics": (1.0, 2.0)}, "returned 2 metrics where 1 are declared"),
        ({"reward": None}, "it returned a reward that is not one number: None"),
        ({"reward": np.ones(1)}, "it returned a reward that is not one number: array([1.])"),
        ({"reward": np.inf}, "it returned a reward that is not finite"),
        ({"metrics": (np.nan,)}, "it returned a metric that is not finite"),
        ({"observation": (np.full(2, np.nan, np.float32), BOTH[1])}, "it returned an observation that is not finite"),
    ],
)
def test_what_is_wrong_with_an_outcome_is_told(changes, said):
    class Wrong(Count):
        def step(self, action):
            return super().step(action)._replace(**changes)

    env, columns = group_of(Wrong, max_rebuilds=0)
    env.reset(np.array([0, 1]), [1, 2], columns)
    with pytest.raises(EnvironmentFailed, match=re.escape(said)):
        env.step(np.array([0, 0], np.int32), columns)


@pytest.mark.parametrize("reward", [1, True, np.float64(1), np.array(1, np.float32)])
def test_a_reward_may_be_any_number(reward):
    class Other(Count):
        def step(self, action):
            return super().step(action)._replace(reward=reward)

    env, columns = group_of(Other)
    env.reset(np.array([0, 1]), [1, 2], columns)
    env.step(np.array([0, 0], np.int32), columns)
    assert columns.reward.tolist() == [1, 1]


def test_what_was_built_is_closed_once_even_if_another_cannot_be_built():
    made = []

    def build():
        if made:
            raise RuntimeError("no more")
        made.append(Count())
        return made[-1]

    with pytest.raises(RuntimeError, match="no more"):
        group_of(build)
    assert made[0].closed == 1


def test_close_may_be_called_twice():
    made = []

    def build():
        made.append(Count())
        return made[-1]

    env, _ = group_of(build)
    env.close()
    env.close()
    assert [one.closed for one in made] == [1, 1]
