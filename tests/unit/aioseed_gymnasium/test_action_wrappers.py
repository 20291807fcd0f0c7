"""Actions given anew: rescaled, made discrete, or fewer of them, for one environment and for many at once."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
from aioseed_gymnasium import plugin
from aioseed_gymnasium.action_wrappers import discretize_actions, keep_actions, rescale_actions
from gymnasium import spaces

from aioseed.errors import SpaceError
from aioseed.specs import ArraySpec, discrete, multi_discrete

BOX = spaces.Box(np.array([-3, 0, -1], np.float32), np.array([1, 10, 1], np.float32))
MANY_PENDULUMS = """
import gymnasium

def many(num_envs):
    make = lambda: gymnasium.make("Pendulum-v1", disable_env_checker=True)
    return gymnasium.vector.SyncVectorEnv([make] * num_envs)
"""
NOTHING = spaces.Box(0, 1, (1,), np.float32)


@pytest.fixture
def box(constant):
    """Return a function that makes an environment with an action space, by default three numbers with bounds."""
    return lambda space=BOX: constant(NOTHING, np.zeros(1, np.float32), space)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([-1, -1, -1], [-3, 0, -1]),
        ([0, 0, 0], [-1, 5, 0]),
        ([1, 1, 1], [1, 10, 1]),
        ([0.5, -0.5, 0.25], [0, 2.5, 0.25]),
        ([7, -7, 1.00001], [1, 0, 1]),  # clipped
    ],
)
def test_rescaled_actions_reach_from_bound_to_bound(box, given, taken):
    env = box()
    wrapped = rescale_actions(env)
    assert wrapped.action_space == spaces.Box(-1, 1, (3,), np.float32)
    wrapped.step(np.array(given, np.float32))
    np.testing.assert_allclose(env.taken[0], taken, atol=1e-6)
    assert env.taken[0].dtype == np.float32 and env.action_space.contains(env.taken[0])


def test_rounding_does_not_lead_out_of_the_bounds(box):
    env = box(spaces.Box(np.float32(-0.1), np.float32(0.3), (1,), np.float32))
    wrapped = rescale_actions(env)
    for given in np.linspace(-1, 1, 101, dtype=np.float32):
        wrapped.step(np.array([given]))
    assert all(env.action_space.contains(taken) for taken in env.taken)


def test_linear_choices_are_spaced_evenly(box):
    env = box()
    wrapped = discretize_actions(env, choices=5)
    assert wrapped.action_space == spaces.MultiDiscrete([5, 5, 5])
    for choice in range(5):
        wrapped.step(np.array([choice] * 3))
    np.testing.assert_allclose(env.taken, np.linspace(BOX.low, BOX.high, 5), atol=1e-6)


def literal_log_values(high: float, choices: int, ratio: float) -> list[float]:
    """Write out SEED RL's log buckets: 0, and distances from high/ratio to high that grow by one factor."""
    steps = choices // 2 - 1
    above = [high / ratio * math.exp(math.log(ratio) * i / steps) for i in range(steps + 1)]
    return [-value for value in reversed(above)] + [0.0] + above


@pytest.mark.parametrize(("choices", "ratio"), [(11, 30.0), (5, 4.0), (7, 1.5)])
def test_logarithmic_choices_are_those_of_seed(box, choices, ratio):
    env = box(spaces.Box(-2, 2, (1,), np.float32))
    wrapped = discretize_actions(env, choices, "log", ratio)
    for choice in range(choices):
        wrapped.step(np.array([choice]))
    np.testing.assert_allclose(np.ravel(env.taken), literal_log_values(2.0, choices, ratio), rtol=1e-5, atol=1e-7)


def test_three_logarithmic_choices_are_the_bounds_and_the_middle(box):
    env = box(spaces.Box(-2, 2, (1,), np.float32))
    wrapped = discretize_actions(env, 3, "log")
    for choice in range(3):
        wrapped.step(np.array([choice]))
    np.testing.assert_allclose(np.ravel(env.taken), [-2, 0, 2])


@pytest.mark.parametrize(
    ("space", "kwargs", "sentence"),
    [
        (spaces.Discrete(3), {}, "^discretize_actions takes a Box of real numbers, this action is Discrete"),
        (spaces.Box(-np.inf, np.inf, (1,), np.float32), {}, "^discretize_actions needs finite bounds"),
        (spaces.Box(0, 3, (1,), np.int32), {}, "^discretize_actions takes a Box of real numbers"),
        (BOX, {"choices": 1}, "at least 2 choices, not 1$"),
        (BOX, {"choices": 4, "spacing": "log"}, "an odd number of choices from 3 on and a ratio above 1, not 4"),
        (BOX, {"spacing": "log", "ratio": 1.0}, "a ratio above 1, not 11 and 1.0$"),
        (BOX, {"spacing": "cubic"}, '"lin" or "log", not \'cubic\'$'),
    ],
)
def test_actions_that_cannot_be_made_discrete_are_refused(box, space, kwargs, sentence):
    with pytest.raises(SpaceError, match=sentence):
        discretize_actions(box(space), **kwargs)


@pytest.mark.parametrize("wrapper", ["rescale_actions", "discretize_actions"])
def test_the_plugin_finds_them_by_name_and_vector_environments_get_the_same(group, local_module, wrapper):
    local_module(f"pendulums_{wrapper}", MANY_PENDULUMS)
    options = {"wrappers": [{"name": wrapper}]}
    plain = group(plugin.make("Pendulum-v1", options, 2))
    many = group(plugin.make(f"pendulums_{wrapper}:many", {**options, "vectorized": True}, 2))
    assert plain.env.spec == many.env.spec
    for run in (plain, many):
        run.reset(seeds=[3, 4])
        run.step([1], [0])
        run.step([0], [1])
    np.testing.assert_array_equal(plain.columns.observation[0], many.columns.observation[0])
    assert plain.rewards == many.rewards


def test_a_rescaled_action_travels_with_its_new_bounds():
    rescaled = plugin.make("Pendulum-v1", {"wrappers": [{"name": "rescale_actions"}]}, 1).spec.action
    assert (rescaled.kind, rescaled.array, rescaled.low, rescaled.high) == (
        "box",
        ArraySpec("float32", (1,)),
        (-1,),
        (1,),
    )
    wrappers = [{"name": "discretize_actions", "kwargs": {"choices": 7, "spacing": "log"}}]
    assert plugin.make("Pendulum-v1", {"wrappers": wrappers}, 1).spec.action == multi_discrete([7])


def test_gymnasium_still_accepts_the_environment(box):
    wrapped = discretize_actions(gymnasium.make("Pendulum-v1"))
    wrapped.reset(seed=0)
    assert wrapped.observation_space.contains(wrapped.step(wrapped.action_space.sample())[0])


def test_actions_that_stay_are_counted_anew(box):
    env = box(spaces.Discrete(5, start=-1))
    wrapped = keep_actions(env, [3, -1])
    assert wrapped.action_space == spaces.Discrete(2)
    wrapped.step(0)
    wrapped.step(1)
    assert env.taken == [3, -1]


def test_what_stays_is_the_same_for_one_environment_and_for_many(group):
    options = {"wrappers": [{"name": "keep_actions", "kwargs": {"keep": [1, 0]}}]}
    for vectorized in (False, True):
        run = group(plugin.make("CartPole-v1", {**options, "vectorized": vectorized}, 2))
        run.reset(seeds=[3, 4])
        run.step(0, 1)
        velocity = run.columns.observation[0][:, 1]
        assert run.env.spec.action == discrete(2)
        assert velocity[0] > 0.1 and velocity[1] < -0.1  # action 0 pushes to the right now


@pytest.mark.parametrize(
    ("space", "keep", "sentence"),
    [
        (BOX, [0], "keep_actions takes a Discrete action, this one is Box"),
        (spaces.Discrete(3), [], r"different actions of Discrete\(3\), not \[\]$"),
        (spaces.Discrete(3), [0, 0], r"not \[0, 0\]$"),
        (spaces.Discrete(3), [0, 3], r"not \[0, 3\]$"),
    ],
)
def test_actions_that_are_not_there_cannot_stay(box, space, keep, sentence):
    with pytest.raises(SpaceError, match=sentence):
        keep_actions(box(space), keep)
