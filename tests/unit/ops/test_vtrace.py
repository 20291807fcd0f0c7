"""V-trace by hand, and at the edges that the oracle's random numbers do not reach."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.ops.vtrace import vtrace


def test_three_steps_on_policy_by_hand() -> None:
    """With pi = mu and lambda = 1 the targets are discounted returns with a bootstrap."""
    found = vtrace(
        jnp.zeros(3), jnp.full(3, 0.5), jnp.array([1.0, 2.0, 4.0]), jnp.array([0.0, 1.0, 2.0, 8.0]), jnp.full(3, True)
    )
    np.testing.assert_allclose(found.targets, [1 + 0.5 * (2 + 0.5 * 8), 2 + 0.5 * 8, 8])
    np.testing.assert_allclose(found.advantages, [4, 5, 6])
    np.testing.assert_allclose(found.errors, [4, 5, 6])


def test_nothing_at_a_border_reaches_the_rest_not_even_nan() -> None:
    valid = jnp.array([True, True, False, True])
    wild = jnp.array([0.0, 0.0, jnp.nan, 0.0])
    values = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = vtrace(wild, wild + 0.5, wild + 1, values, valid)
    calm = vtrace(jnp.zeros(4), jnp.full(4, 0.5), jnp.ones(4), values, valid)
    assert found.targets[2] == 3 and found.errors[2] == found.advantages[2] == 0
    for ours, wanted in zip(found, calm, strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_no_gradient_flows_through_targets_or_advantages() -> None:
    def total(log_rhos: jax.Array, values: jax.Array) -> jax.Array:
        found = vtrace(log_rhos, jnp.full(3, 0.9), jnp.ones(3), values, jnp.full(3, True))
        return jnp.sum(found.targets + found.advantages + found.errors)

    for gradient in jax.grad(total, argnums=(0, 1))(jnp.zeros(3), jnp.arange(4.0)):
        assert not np.any(gradient)


def test_weights_however_large_count_as_1_by_default_and_those_of_nearly_0_as_none() -> None:
    def found(*log_rhos: float) -> np.ndarray:
        return np.asarray(vtrace(jnp.array(log_rhos), jnp.full(2, 0.9), jnp.ones(2), jnp.ones(3), jnp.full(2, True)))

    np.testing.assert_array_equal(found(1e4, 0.1), found(0.0, 0.0))
    targets, advantages, errors = found(1e4, -1e4)
    np.testing.assert_allclose(targets, [1 + 0.9, 1], rtol=1e-6)
    np.testing.assert_allclose(advantages, [0.9, 0], rtol=1e-6)
    np.testing.assert_allclose(errors, [0.9, 0], rtol=1e-6)


def test_a_wrong_shape_or_dtype_is_refused_by_name() -> None:
    three, four = jnp.zeros(3), jnp.zeros(4)
    with pytest.raises(ValueError, match="discounts must be 3 long"):
        vtrace(three, four, three, four, jnp.full(3, True))
    with pytest.raises(ValueError, match="values must have 1 axes"):
        vtrace(three, three, three, four[None], jnp.full(3, True))
    with pytest.raises(TypeError, match="valid must be bool"):
        vtrace(three, three, three, four, three)
