"""Targets for action values: n-step returns, and double Q-learning's choice of what they bootstrap from.

Unbatched and time-major, as in `aioseed.ops.vtrace`: transition t leads from row t to row t+1, uses ``action[t]`` and
the reward and flags that came with row t+1, and is valid unless row t+1 begins an episode.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank


def double_q_values(online: jax.Array, target: jax.Array) -> jax.Array:
    """Return float32[R], ``Q_target(x, argmax_a Q_online(x, a))`` (van Hasselt et al. 2016, arXiv:1509.06461, eq. 4).

    No gradient flows through it.

    Args:
        online: float32[R, A], values that choose the action.
        target: float32[R, A], values that say what it is worth.
    """
    check_rank(2, online=online, target=target)
    check_kind(jnp.floating, online=online, target=target)
    if online.shape != target.shape:
        raise ValueError(f"online has shape {online.shape}, target {target.shape}")
    best = jnp.argmax(online, axis=-1)
    return jax.lax.stop_gradient(jnp.take_along_axis(target, best[:, None], axis=-1)[:, 0])


def n_step_targets(
    rewards: jax.Array, discounts: jax.Array, values: jax.Array, valid: jax.Array, *, steps: int
) -> jax.Array:
    """Return float32[T], the n-step returns of Watkins 1989 (Sutton and Barto 2018, eq. 7.1), cut at episode borders.

    With n = `steps`, and transitions t .. t+m-1 the longest run of valid ones that is neither longer than n nor goes
    beyond row T::

        G_t = sum_{i<m} gamma^(i) r_(t+i) + gamma^(m) V(x_(t+m))

    where ``gamma^(i)`` is the product of the first i discounts from t on. So a sum ends at a final row and bootstraps
    from that row's own value (which a discount of 0 silences where it terminated), and the last n-1 returns of an
    unroll are shorter. At a transition that is not valid the answer is the row's own value, and its reward and discount
    may be anything, NaN too. No gradient flows through any of it.

    Args:
        rewards: float32[T], of transition t.
        discounts: float32[T]; 0 where row t+1 terminated.
        values: float32[T+1], bootstrap values of the rows.
        valid: bool[T].
        steps: n, at least 1.

    Raises:
        ValueError: A rank or a length is wrong, or `steps` is below 1 (when tracing).
        TypeError: A dtype is wrong (when tracing).
    """
    check_rank(1, rewards=rewards, discounts=discounts, values=values, valid=valid)
    check_kind(jnp.floating, rewards=rewards, discounts=discounts, values=values)
    check_kind(jnp.bool_, valid=valid)
    check_length(values.shape[0] - 1, rewards=rewards, discounts=discounts, valid=valid)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, it is {steps}")
    own = values[:-1]
    returns = values
    # After k rounds row r holds its k-step return; a row that leads nowhere keeps its own value for ever.
    for _ in range(min(steps, values.shape[0] - 1)):
        # Not a product with 0 alone: what lies beyond a final row may be infinite.
        beyond = discounts * jnp.where(discounts > 0, returns[1:], 0.0)
        returns = jnp.concatenate([jnp.where(valid, rewards + beyond, own), values[-1:]])
    return jax.lax.stop_gradient(returns[:-1])
