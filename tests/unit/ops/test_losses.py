"""Loss terms by hand, where their gradients go, and that what is masked has no influence."""

from __future__ import annotations

from functools import partial

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


def test_the_clipped_surrogate_follows_the_ratio_until_it_has_moved_enough_where_the_advantage_wants_it() -> None:
    ratios, advantages = np.array([1.1, 1.3, 0.7, 1.3, 0.7, 0.9]), np.array([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    log_ratios = jnp.log(jnp.asarray(ratios, jnp.float32))

    def loss(log_ratios):
        return losses.clipped_surrogate(log_ratios, jnp.asarray(advantages, jnp.float32), 0.2)

    np.testing.assert_allclose(loss(log_ratios), [-2.2, -2.4, -1.4, 2.6, 1.6, 1.8], rtol=1e-6)
    slopes = jax.grad(lambda given: loss(given).sum())(log_ratios)
    np.testing.assert_allclose(slopes, [-2.2, 0, -1.4, 2.6, 0, 1.8], rtol=1e-6)


def test_a_surrogate_of_an_endless_ratio_is_a_number_still() -> None:
    def loss(log_ratio, advantage):
        return losses.clipped_surrogate(log_ratio[None], advantage[None], 0.2)[0]

    for advantage in (-1.0, 1.0):
        found = jax.value_and_grad(loss, argnums=(0, 1))(jnp.float32(1e4), jnp.float32(advantage))
        assert np.isfinite(np.array(jax.tree.leaves(found))).all()
        assert found[1][1] == 0, "advantages are constants"


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


@pytest.mark.parametrize(
    ("term", "names"),
    [
        (losses.policy_gradient, ("log_probs", "advantages")),
        (partial(losses.clipped_surrogate, clip_ratio=0.2), ("log_ratios", "advantages")),
        (losses.value_error, ("values", "targets")),
        (losses.behaviour_kl, ("behaviour_log_probs", "log_probs")),
    ],
)
def test_arguments_that_are_not_one_real_number_a_step_are_refused_by_name(term, names) -> None:
    for place, name in enumerate(names):
        for wrong, error, said in (
            (jnp.zeros((3, 1)), ValueError, f"{name} must have 1 axes"),
            (jnp.zeros(3, jnp.int32), TypeError, f"{name} must be floating"),
        ):
            given = [jnp.zeros(3), jnp.zeros(3)]
            given[place] = wrong
            with pytest.raises(error, match=said):
                term(*given)
    with pytest.raises(ValueError, match=r"must be \d long"):
        term(jnp.zeros(2), jnp.zeros(1))  # which would be taken for as many as wanted


def test_what_cannot_be_masked_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be masked"):
        losses.masked_sum(jnp.zeros(3), jnp.full(2, True))
    with pytest.raises(TypeError, match="mask must be bool"):
        losses.masked_sum(jnp.zeros(3), jnp.ones(3))
    with pytest.raises(TypeError, match="terms must be floating"):
        losses.masked_sum(jnp.zeros(3, jnp.int32), jnp.full(3, True))
