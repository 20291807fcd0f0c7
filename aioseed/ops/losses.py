"""Terms of actor-critic losses, one number a step; the caller weights, masks and sums them.

Unbatched and time-major. `masked_sum` is the only way in which agents add steps up: a step that does not count has no
influence, neither on the sum nor on its gradient, whatever it holds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank

_MAX_LOG_RATIO = 20.0


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


def clipped_surrogate(log_ratios: jax.Array, advantages: jax.Array, clip_ratio: float) -> jax.Array:
    """Return float32[T], ``-min(r_t A_t, clip(r_t, 1 - clip_ratio, 1 + clip_ratio) A_t)`` (Schulman et al. 2017,
    arXiv:1707.06347, eq. 7), r being pi/mu.

    Args:
        log_ratios: float32[T], ``log pi(a_t | x_t) - log mu(a_t | x_t)``, pi being learned and mu having acted. Beyond
            20 the ratio stays as it is there: its square is a number still.
        advantages: float32[T], constants: no gradient flows through them.
        clip_ratio: By how much a ratio may leave 1 in the direction of the advantage and still be followed.
    """
    check_rank(1, log_ratios=log_ratios, advantages=advantages)
    check_kind(jnp.floating, log_ratios=log_ratios, advantages=advantages)
    check_length(log_ratios.shape[0], advantages=advantages)
    advantages = jax.lax.stop_gradient(advantages)
    ratios = jnp.exp(jnp.minimum(log_ratios, _MAX_LOG_RATIO))
    return -jnp.minimum(ratios * advantages, jnp.clip(ratios, 1 - clip_ratio, 1 + clip_ratio) * advantages)


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
