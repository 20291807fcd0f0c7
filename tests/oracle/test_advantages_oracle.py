"""Generalised advantages against the sum of the paper, and against V-trace where they are the same."""

from __future__ import annotations

from functools import cache, partial

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioseed.ops.advantages import Advantages, generalized_advantages
from aioseed.ops.vtrace import vtrace

SETTINGS = [(0.95, None), (1.0, None), (0.0, None), (0.8, 1.0), (1.0, 2.5)]

numbers = partial(st.floats, allow_nan=False, width=32)
step = st.tuples(numbers(-3, 3), st.sampled_from([0.0, 0.9, 1.0]), numbers(-5, 5), numbers(-5, 5), st.booleans())


@cache
def compiled(lambda_: float, clip_rho: float | None):
    return jax.jit(partial(generalized_advantages, lambda_=lambda_, clip_rho=clip_rho))


def ours(log_rhos, discounts, rewards, values, valid, lambda_, clip_rho) -> Advantages:
    columns = [np.asarray(column, np.float32) for column in (log_rhos, discounts, rewards, values)]
    return compiled(lambda_, clip_rho)(*columns, np.asarray(valid, bool))


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5 * max(1, np.max(np.abs(wanted), initial=0)))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("steps", [1, 6])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_advantages_are_equation_16_of_the_paper(literal_advantages, setting, steps, data) -> None:
    rows = data.draw(st.lists(step, min_size=steps, max_size=steps))
    bootstrap = data.draw(numbers(-5, 5))
    log_rhos, discounts, rewards, values, valid = (np.array(column) for column in zip(*rows, strict=True))
    columns = (log_rhos, discounts, rewards, np.append(values, bootstrap), valid)
    found = ours(*columns, *setting)
    targets, advantages = literal_advantages(*columns, *setting)
    close(found.targets, targets)
    close(found.advantages, advantages)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_with_a_bound_of_1_the_targets_are_those_of_vtrace(lambda_: float) -> None:
    generator = np.random.default_rng(0)
    columns = [generator.normal(size=(9, length)).astype(np.float32) for length in (20, 20, 20, 21)]
    valid = generator.random((9, 20)) < 0.8
    compiled_vtrace = jax.jit(partial(vtrace, lambda_=lambda_))
    for log_rhos, discounts, rewards, values, ok in zip(*columns, valid, strict=True):
        found = ours(log_rhos, abs(discounts) % 1, rewards, values, ok, lambda_, 1.0)
        wanted = compiled_vtrace(log_rhos, abs(discounts) % 1, rewards, values, ok)
        close(found.targets, np.asarray(wanted.targets))


def test_what_stands_at_a_border_has_no_influence() -> None:
    columns = [np.full(3, 0.5, np.float32)] * 3
    wild = [np.array([0.5, np.nan, 0.5], np.float32)] * 3
    values, valid = np.arange(4, dtype=np.float32), np.array([True, False, True])
    for setting in SETTINGS:
        for one, other in zip(
            ours(*columns, values, valid, *setting), ours(*wild, values, valid, *setting), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("wrong", [{"rewards": np.zeros(2, np.float32)}, {"values": np.zeros((4, 1), np.float32)}])
def test_columns_that_do_not_fit_are_refused(wrong: dict[str, np.ndarray]) -> None:
    columns = dict.fromkeys(("log_rhos", "discounts", "rewards"), np.zeros(3, np.float32))
    given_ = {**columns, "values": np.zeros(4, np.float32), "valid": np.ones(3, bool), **wrong}
    with pytest.raises(ValueError, match="must"):
        generalized_advantages(**given_, lambda_=1.0, clip_rho=None)
    with pytest.raises(TypeError, match="valid must"):
        generalized_advantages(
            **{**given_, **columns, "values": np.zeros(4, np.float32), "valid": np.ones(3, int)},
            lambda_=1.0,
            clip_rho=None,
        )
