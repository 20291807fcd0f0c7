"""Value rescaling, n-step double Q-learning and priorities against literal float64 code and SEED RL's test values."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.ops.n_step import double_q_values, n_step_targets
from aioseed.ops.priorities import unroll_priority
from aioseed.ops.value_rescaling import rescale, unrescale

RLAX = json.loads((Path(__file__).parent / "vectors" / "rlax_q_learning.json").read_text())
numbers = partial(st.floats, allow_nan=False, width=32)
step = st.tuples(numbers(-3, 3), st.sampled_from([0.0, 0.9, 1.0]), numbers(-5, 5), st.booleans())


def literal_h(x: float, epsilon: float) -> float:
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + epsilon * x


def literal_inverse(y: float, epsilon: float) -> float:
    root = np.sqrt(1 + 4 * epsilon * (abs(y) + 1 + epsilon))
    return np.sign(y) * (((root - 1) / (2 * epsilon)) ** 2 - 1)


def literal_n_step(rewards, discounts, values, valid, steps) -> list[float]:
    """Return the targets by walking from each row, one transition at a time, until something ends the walk."""
    targets = []
    for t in range(len(rewards)):
        total, weight, row = 0.0, 1.0, t
        while row < len(rewards) and row - t < steps and valid[row]:
            total += weight * rewards[row]
            weight *= discounts[row]
            row += 1
        targets.append(total + (weight * values[row] if weight else 0.0))
    return targets


def literal_priority(errors, valid, share) -> float:
    kept = [abs(error) for error, ok in zip(errors, valid, strict=True) if ok]
    return share * max(kept) + (1 - share) * sum(kept) / len(kept) if kept else 0.0


@cache
def compiled_n_step(steps: int):
    return jax.jit(partial(n_step_targets, steps=steps))


@cache
def compiled_priority(share: float):
    return jax.jit(partial(unroll_priority, max_share=share))


def targets_of(rewards, discounts, values, valid, steps) -> np.ndarray:
    columns = [np.asarray(column, np.float32) for column in (rewards, discounts, values)]
    return np.asarray(compiled_n_step(steps)(*columns, np.asarray(valid, bool)))


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0])
def test_rescaling_is_h_and_its_inverse_is_exact(epsilon: float) -> None:
    values = np.concatenate([np.linspace(-100, 100, 401), [1e-6, -1e-4, 1e4, -1e6]])
    squashed = [literal_h(value, epsilon) for value in values]
    np.testing.assert_allclose(rescale(jnp.float32(values), epsilon), squashed, rtol=1e-6)
    np.testing.assert_allclose([literal_inverse(value, epsilon) for value in squashed], values, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(unrescale(rescale(jnp.float32(values), epsilon), epsilon), values, rtol=2e-6)


def test_rescaling_of_3_is_the_value_of_seed() -> None:
    np.testing.assert_allclose(rescale(jnp.float32(3), 1e-3), 1 + 3e-3, rtol=1e-6)


def test_the_inverse_keeps_its_digits_where_the_form_of_the_paper_loses_them_in_float32() -> None:
    values = jnp.float32(np.logspace(-6, 3, 50))
    wanted = [literal_inverse(np.float64(value), 1e-3) for value in values]
    # float64 itself keeps about nine digits of the paper's form.
    np.testing.assert_allclose(unrescale(values, 1e-3), wanted, rtol=2e-6, atol=1e-11)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@given(rows=st.lists(step, min_size=7, max_size=7), bootstrap=numbers(-5, 5))
def test_n_step_targets_are_those_of_a_walk(steps, rows, bootstrap) -> None:
    rewards, discounts, values, valid = (list(column) for column in zip(*rows, strict=True))
    found = targets_of(rewards, discounts, [*values, bootstrap], valid, steps)
    np.testing.assert_allclose(
        found, literal_n_step(rewards, discounts, [*values, bootstrap], valid, steps), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [(1, [1 + 90, 2 + 180, 3 + 270]), (2, [1 + 0.9 * 2 + 0.81 * 200, 2 + 0.9 * 3 + 0.81 * 300, 3 + 0.9 * 300])],
)
def test_n_step_targets_have_the_values_of_seeds_own_test(steps, wanted) -> None:
    # SEED's q-values are those of the rows after the rewards: its row t is our row t+1.
    found = targets_of([1, 2, 3], [0.9] * 3, [0, 100, 200, 300], [True] * 3, steps)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_three_step_targets_stop_at_an_end_and_begin_anew_behind_it() -> None:
    """Row 4 is final (terminated), row 5 first: seven transitions, of which the fifth is none."""
    rewards, valid = [1, 2, 3, 4, np.nan, 6, 7], [True] * 4 + [False] + [True] * 2
    discounts = [0.9, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9]
    values = [0, 100, 200, 300, np.inf, 500, 600, 700]
    found = targets_of(rewards, discounts, values, valid, 3)
    three = [
        1 + 0.9 * 2 + 0.81 * 3 + 0.729 * 300,
        2 + 0.9 * 3 + 0.81 * 4,
        3 + 0.9 * 4,
        4,
        np.inf,
        6 + 0.9 * 7 + 0.81 * 700,
        7 + 0.9 * 700,
    ]
    np.testing.assert_allclose(found, three, rtol=1e-6)


def test_nothing_of_what_is_no_transition_reaches_the_targets_and_no_gradient_flows_through_them() -> None:
    valid = [True, False, True, False]
    calm, wild = ([1.0, at, 2.0, at] for at in (0.5, np.nan))
    values = [10.0, 20.0, 30.0, 40.0, 50.0]
    np.testing.assert_array_equal(targets_of(wild, wild, values, valid, 3), targets_of(calm, calm, values, valid, 3))
    columns = [jnp.array(column) for column in (calm, calm, values)]
    gradient = jax.grad(lambda given: n_step_targets(*given, jnp.array(valid), steps=3).sum())(columns)
    assert not any(np.any(leaf) for leaf in gradient)


def test_a_truncated_episode_bootstraps_from_its_own_final_row() -> None:
    found = targets_of([1, 2, 9, 9], [0.9] * 4, [10, 20, 30, 40, 50], [True, True, False, True], 5)
    np.testing.assert_allclose(found[:2], [1 + 0.9 * 2 + 0.81 * 30, 2 + 0.9 * 30], rtol=1e-6)


@given(
    lengths=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    ends=st.lists(st.booleans(), min_size=4, max_size=4),
    seed=st.integers(0, 2**16),
)
def test_episodes_laid_end_to_end_give_the_targets_of_each_alone(lengths, ends, seed) -> None:
    generator = np.random.default_rng(seed)
    together: list[list[float]] = [[], [], [], []]
    alone: list[float] = []
    where: list[int] = []
    for length, terminated in zip(lengths, ends, strict=False):
        rewards, values = generator.normal(size=length), generator.normal(size=length + 1)
        discounts = [0.9] * (length - 1) + [0.0 if terminated else 0.9]
        where += range(len(together[0]), len(together[0]) + length)
        alone += literal_n_step(rewards, discounts, values, [True] * length, 3)
        together[0] += [*rewards, 99.0]
        together[1] += [*discounts, 0.9]
        together[2] += list(values)
        together[3] += [True] * length + [False]
    found = targets_of(together[0], together[1], [*together[2], 7.0], together[3], 3)
    np.testing.assert_allclose(found[where], alone, rtol=1e-5, atol=1e-5)


def test_double_q_lets_one_network_choose_and_the_other_value() -> None:
    online = jnp.array([[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]])
    target = jnp.array([[10.0, -20.0, 30.0], [7.0, 8.0, 9.0]])
    np.testing.assert_array_equal(double_q_values(online, target), [-20, 7])
    gradient = jax.grad(lambda both: double_q_values(both[0], both[1]).sum())((online, target))
    assert all(not np.any(leaf) for leaf in gradient)


@pytest.mark.parametrize("case", RLAX["cases"], ids=lambda case: f"{len(case['rewards'])}-{case['steps']}")
def test_the_whole_road_from_values_to_errors_answers_as_rlax_does(case) -> None:
    """Its `transformed_n_step_q_learning` with double Q, its signed hyperbolic function and the inverse of that."""
    online, target = (np.float32(case[name]).reshape(-1, 3) for name in ("online", "target"))
    rewards, discounts = np.float32(case["rewards"]), np.float32(case["discounts"])
    # rlax's inverse loses digits in float32, as the test of ours shows.
    np.testing.assert_allclose(jax.jit(unrescale)(target).reshape(-1), case["unrescaled"], atol=2e-3)
    np.testing.assert_allclose(jax.jit(rescale)(np.float32(case["unrescaled"])), case["rescaled"], rtol=1e-5, atol=1e-6)
    values = jax.jit(lambda online, target: unrescale(double_q_values(online, target)))(online, target)
    returns = targets_of(rewards, discounts, values, np.ones(len(rewards)), case["steps"])
    taken = np.take_along_axis(online[:-1], np.array(case["actions"], np.intp)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(jax.jit(rescale)(np.float32(returns)) - taken, case["errors"], atol=2e-4)


@pytest.mark.parametrize("share", [0.0, 0.9, 1.0])
@given(rows=st.lists(st.tuples(numbers(-5, 5), st.booleans()), min_size=6, max_size=6))
def test_a_priority_mixes_maximum_and_mean_over_valid_steps(share, rows) -> None:
    errors, valid = zip(*rows, strict=True)
    hidden = np.where(valid, np.float32(errors), np.nan)
    found = compiled_priority(share)(np.float32(hidden), np.array(valid))
    np.testing.assert_allclose(found, literal_priority(errors, valid, share), rtol=1e-5, atol=1e-6)


def test_nine_tenths_of_a_priority_are_the_maximum_by_default() -> None:
    np.testing.assert_allclose(unroll_priority(jnp.array([1.0, -3.0]), jnp.full(2, True)), 2.9, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda: n_step_targets(jnp.ones(2), jnp.ones(2), jnp.ones(2), jnp.ones(2, bool), steps=1), ValueError),
        (lambda: n_step_targets(jnp.ones(2), jnp.ones(2), jnp.ones(3), jnp.ones(2, bool), steps=0), ValueError),
        (lambda: n_step_targets(jnp.ones(2), jnp.ones(2), jnp.ones(3), jnp.ones(2), steps=1), TypeError),
        (lambda: double_q_values(jnp.ones((2, 3)), jnp.ones((2, 4))), ValueError),
        (lambda: unroll_priority(jnp.ones(3), jnp.ones(2, bool)), ValueError),
        (lambda: rescale(jnp.ones(3, jnp.int32)), TypeError),
        (lambda: unrescale(jnp.ones(3, jnp.int32)), TypeError),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused_when_tracing(function, error) -> None:
    with pytest.raises(error):
        function()
