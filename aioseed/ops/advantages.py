"""Generalised advantages (Schulman et al. 2016, arXiv:1506.02438), corrected off-policy if asked for.

Unbatched and time-major, as `aioseed.ops.vtrace`, which says what the rows of an unroll hold.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank
from aioseed.ops.vtrace import clipped, discounted_sums


class Advantages(NamedTuple):
    """Hold what one unroll says of its actions. No gradient flows through any of it."""

    targets: jax.Array  # float32[T], what V(x_t) should become
    advantages: jax.Array  # float32[T], without the importance weight of step t itself


def generalized_advantages(
    log_rhos: jax.Array,
    discounts: jax.Array,
    rewards: jax.Array,
    values: jax.Array,
    valid: jax.Array,
    *,
    lambda_: float,
    clip_rho: float | None,
) -> Advantages:
    """Return the advantages of equation 16, and the targets of the values that belong to them.

    With ``rho_t = min(clip_rho, pi/mu)``, or 1 where `clip_rho` is None::

        delta_t  = r_t + gamma_t V(x_t+1) - V(x_t)
        A_t      = delta_t + gamma_t lambda rho_t+1 A_t+1,        A_T = 0
        target_t = V(x_t) + rho_t A_t

    With all rho at 1 that is the paper's estimator and its TD(lambda) target. With a bound of 1, targets are those of
    V-trace (Espeholt et al. 2018, equation 1) with c = lambda rho. Where `valid` is False the transition is no
    transition (row t+1 begins an episode): A is 0 there. `log_rhos`, `discounts` and `rewards` may hold anything there.

    Args:
        log_rhos: float32[T], ``log pi(a_t | x_t) - log mu(a_t | x_t)``, pi being learned and mu having acted.
        discounts: float32[T], gamma_t; 0 where row t+1 terminated, unchanged where it was truncated.
        rewards: float32[T], of transition t: the reward at row t+1.
        values: float32[T+1], V of every row; the last is the bootstrap value.
        valid: bool[T], False where row t+1 is first.
        lambda_: Between 0 and 1; 0 is one step ahead, 1 the whole unroll.
        clip_rho: Bound of importance weights; None takes the unroll as if pi had acted.

    Raises:
        ValueError: A rank or a length is wrong (when tracing).
        TypeError: A dtype is wrong (when tracing).
    """
    check_rank(1, log_rhos=log_rhos, discounts=discounts, rewards=rewards, values=values, valid=valid)
    check_kind(jnp.floating, log_rhos=log_rhos, discounts=discounts, rewards=rewards, values=values)
    check_kind(jnp.bool_, valid=valid)
    check_length(values.shape[0] - 1, log_rhos=log_rhos, discounts=discounts, rewards=rewards, valid=valid)

    values = jax.lax.stop_gradient(values)
    weights = 1.0 if clip_rho is None else clipped(jnp.exp(jax.lax.stop_gradient(log_rhos)), clip_rho)
    rhos = jnp.where(valid, weights, 0.0)
    discounts = jnp.where(valid, discounts, 0.0)
    deltas = jnp.where(valid, rewards + discounts * values[1:] - values[:-1], 0.0)

    errors = discounted_sums(rhos * deltas, rhos * discounts * lambda_)
    later = jnp.concatenate([errors[1:], jnp.zeros_like(errors[:1])])
    return Advantages(values[:-1] + errors, deltas + discounts * lambda_ * later)
