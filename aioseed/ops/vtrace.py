"""V-trace: off-policy corrected value targets and advantages for actor-critic (Espeholt et al. 2018, arXiv:1802.01561).

Everything here is unbatched and time-major; `jax.vmap` adds the batch axis.

An unroll has rows 0..T. Row t holds an observation, the reward and flags that came *with* it, and the action taken
*from* it. Transition t, for t in 0..T-1, leads from row t to row t+1: it uses ``action[t]``, ``reward[t+1]`` and
``flags[t+1]``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank


class Vtrace(NamedTuple):
    """Hold what V-trace makes of one unroll. No gradient flows through any of it."""

    targets: jax.Array  # float32[T], v_s of the paper: what V(x_s) should become
    advantages: jax.Array  # float32[T], weight of grad log pi(a_s | x_s); includes the clipped importance weight
    errors: jax.Array  # float32[T], targets - values[:-1]


def vtrace(
    log_rhos: jax.Array,
    discounts: jax.Array,
    rewards: jax.Array,
    values: jax.Array,
    valid: jax.Array,
    *,
    lambda_: float = 1.0,
    clip_rho: float | None = 1.0,
    clip_pg_rho: float | None = 1.0,
) -> Vtrace:
    """Return the V-trace targets of equation 1 and the policy-gradient advantages of section 4.2.

    With ``rho_t = min(clip_rho, pi/mu)`` and ``c_t = lambda min(1, pi/mu)``::

        delta_t = rho_t (r_t + gamma_t V(x_t+1) - V(x_t))
        v_s     = V(x_s) + sum_{t=s}^{T-1} (prod_{i=s}^{t-1} gamma_i c_i) delta_t
        A_s     = min(clip_pg_rho, pi/mu) (r_s + gamma_s v_s+1 - V(x_s)),        v_T = V(x_T)

    computed by the recursion of remark 1. Where `valid` is False the transition is no transition (row t+1 begins an
    episode): delta, c and the discount are 0 there, so ``v_t = V(x_t)``. That is what the transition before it, which
    ends in the final row t, bootstraps from. There `log_rhos`, `discounts` and `rewards` may hold anything, NaN too.

    Args:
        log_rhos: float32[T], ``log pi(a_t | x_t) - log mu(a_t | x_t)``, pi being learned and mu having acted.
        discounts: float32[T], gamma_t; 0 where row t+1 terminated, unchanged where it was truncated.
        rewards: float32[T], of transition t: the reward at row t+1.
        values: float32[T+1], V of every row; the last is the bootstrap value.
        valid: bool[T], False where row t+1 is first.
        lambda_: Between 0 and 1; 1 is V-trace as in the paper, 0 makes one-step targets.
        clip_rho: Upper bound of the weights in delta (rho-bar): it fixes what the values converge to; None for none.
        clip_pg_rho: Upper bound of the weights in the advantages; None for none.

    Raises:
        ValueError: A rank or a length is wrong (when tracing).
        TypeError: A dtype is wrong (when tracing).
    """
    check_rank(1, log_rhos=log_rhos, discounts=discounts, rewards=rewards, values=values, valid=valid)
    check_kind(jnp.floating, log_rhos=log_rhos, discounts=discounts, rewards=rewards, values=values)
    check_kind(jnp.bool_, valid=valid)
    steps = values.shape[0] - 1
    check_length(steps, log_rhos=log_rhos, discounts=discounts, rewards=rewards, valid=valid)

    values = jax.lax.stop_gradient(values)
    rhos = jnp.where(valid, jnp.exp(jax.lax.stop_gradient(log_rhos)), 0.0)
    discounts = jnp.where(valid, discounts, 0.0)
    rewards = jnp.where(valid, rewards, 0.0)

    deltas = clipped(rhos, clip_rho) * (rewards + discounts * values[1:] - values[:-1])
    decays = discounts * lambda_ * clipped(rhos, 1.0)
    errors = discounted_sums(deltas, decays)
    targets = values[:-1] + errors
    next_targets = jnp.concatenate([targets[1:], values[-1:]])
    advantages = clipped(rhos, clip_pg_rho) * (rewards + discounts * next_targets - values[:-1])
    return Vtrace(targets, advantages, errors)


def clipped(rhos: jax.Array, bound: float | None) -> jax.Array:
    """Return importance weights, at most `bound`; None is no bound."""
    return rhos if bound is None else jnp.minimum(rhos, bound)


def discounted_sums(deltas: jax.Array, decays: jax.Array) -> jax.Array:
    """Return ``x_t = deltas_t + decays_t x_t+1`` with ``x_T = 0``."""

    def step(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = now
        total = delta + decay * later
        return total, total

    _, sums = jax.lax.scan(step, jnp.zeros_like(deltas[0]), (deltas, decays), reverse=True)
    return sums
