"""Loss terms by hand, where their gradients go, and that what is masked has no influence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.ops import losses


def test_terms_by_hand() -> None:
    log_probs, advantages = jnp.array([-1.0, -2.0]), jnp.array([3.0, -4.0])
    np.testing.assert_allclose(losses.policy_gradient(log_probs, advantages), [3, -8])
    np.testing.assert_allclose(losses.value_error(jnp.array([1.0, 2.0]), jnp.array([4.0, 2.0])), [4.5, 0])
    np.testing.assert_allclose(losses.behaviour_kl(jnp.array([-1.0, -1.0]), log_probs), [0, 1])


def test_gradients_reach_the_learned_side_only() -> None:
    one, two = jnp.array([1.0]), jnp.array([2.0])

    def slopes(term):
        return [float(slope[0]) for slope in jax.grad(lambda a, b: term(a, b)[0], argnums=(0, 1))(one, two)]

    assert slopes(losses.policy_gradient) == [-2, 0]
    assert slopes(losses.value_error) == [-1, 0]
    assert slopes(losses.behaviour_kl) == [0, -1]


def test_masked_terms_reach_neither_the_sum_nor_the_gradient() -> None:
    terms, mask = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True])
    assert losses.masked_sum(terms, mask) == 4
    np.testing.assert_array_equal(jax.grad(losses.masked_sum)(terms, mask), [1, 0, 1])


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be masked"):
        losses.masked_sum(jnp.zeros(3), jnp.full(2, True))
    with pytest.raises(ValueError, match="advantages must be 2 long"):
        losses.policy_gradient(jnp.zeros(2), jnp.zeros(3))
