"""Terms of actor-critic losses, one number a step; the caller weights, masks and sums them.

Unbatched and time-major. `masked_sum` is the only way in which agents add steps up: a step that does not count has no
influence, neither on the sum nor on its gradient, whatever it holds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank


def policy_gradient(log_probs: jax.Array, advantages: jax.Array) -> jax.Array:
    """Return float32[T], ``-log pi(a_t | x_t) A_t`` (Williams 1992, REINFORCE, eq. 11).

    Args:
        log_probs: float32[T], log-probability of the taken action under the policy being learned.
        advantages: float32[T], constants: no gradient flows through them.
    """
    check_rank(1, log_probs=log_probs, advantages=advantages)
    check_kind(jnp.floating, log_probs=log_probs, advantages=advantages)
    check_length(log_probs.shape[0], advantages=advantages)
    return -log_probs * jax.lax.stop_gradient(advantages)


def value_error(values: jax.Array, targets: jax.Array) -> jax.Array:
    """Return float32[T], ``(target_t - V(x_t))^2 / 2``.

    Args:
        values: float32[T], estimates being learned.
        targets: float32[T], constants: no gradient flows through them.
    """
    check_rank(1, values=values, targets=targets)
    check_kind(jnp.floating, values=values, targets=targets)
    check_length(values.shape[0], targets=targets)
    return 0.5 * jnp.square(jax.lax.stop_gradient(targets) - values)


def behaviour_kl(behaviour_log_probs: jax.Array, log_probs: jax.Array) -> jax.Array:
    """Return float32[T], ``log mu(a_t | x_t) - log pi(a_t | x_t)``: one sample of KL(mu | pi), the action being mu's.

    Its gradient is that of the cross-entropy with the behaviour policy, since mu is a constant.

    Args:
        behaviour_log_probs: float32[T], under the policy mu that acted; a constant.
        log_probs: float32[T], under the policy pi being learned.
    """
    check_rank(1, behaviour_log_probs=behaviour_log_probs, log_probs=log_probs)
    check_kind(jnp.floating, behaviour_log_probs=behaviour_log_probs, log_probs=log_probs)
    check_length(log_probs.shape[0], behaviour_log_probs=behaviour_log_probs)
    return jax.lax.stop_gradient(behaviour_log_probs) - log_probs


def masked_sum(terms: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the float32 sum of `terms` where `mask` is True; any shape, both alike.

    Terms elsewhere may be NaN: they are replaced, not multiplied by zero.
    """
    check_kind(jnp.floating, terms=terms)
    check_kind(jnp.bool_, mask=mask)
    if terms.shape != mask.shape:
        raise ValueError(f"terms of shape {terms.shape} cannot be masked by shape {mask.shape}")
    return jnp.sum(jnp.where(mask, terms, 0.0), dtype=jnp.float32)
