"""The losses of SAC (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"), as sums over valid steps.

Equations 5 to 7 (critics), 9 (policy) and 18 (temperature) there. One optimiser moves all parameters at once, so each
loss holds the parameters of the others still.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents.agent import LossOutput
from aioseed.agents.transitions import Transitions
from aioseed.ops import losses


class Outputs(NamedTuple):
    """Hold what policy and critics say of the rows of unrolls; N critics."""

    taken: jax.Array  # float32[N, T, B], Q(x_t, a_t) of the actions that were taken
    proposed: jax.Array  # float32[N, T, B], Q(x_t, a) of the policy's; no gradient to the critics, but one to a
    log_probs: jax.Array  # float32[T, B], log pi(a | x_t) of the policy's
    after: jax.Array  # float32[N, T, B], target critics' Q(x_{t+1}, a) of the policy's
    log_probs_after: jax.Array  # float32[T, B], log pi(a | x_{t+1})


def sac_loss(steps: Transitions, found: Outputs, entropy_cost: jax.Array, target_entropy: float | None) -> LossOutput:
    """Return the loss, summed over valid steps: ``critic + policy``, and with a target entropy ``temperature``.

    ``critic`` is the squared error to ``r + gamma (min_i Q_i' - entropy_cost log pi)``, averaged over critics;
    ``policy`` is ``entropy_cost log pi - min_i Q_i``; ``temperature`` is ``entropy_cost (entropy - target)``, whose
    gradient goes to the cost alone: it rises while the entropy is too low.

    Args:
        steps: The transitions of B unrolls.
        found: What policy and critics say of them.
        entropy_cost: float32[].
        target_entropy: In nats, or None.
    """

    def total_of(per_step: jax.Array) -> jax.Array:
        return losses.masked_sum(per_step, steps.valid)

    cost = jax.lax.stop_gradient(entropy_cost)
    soft_value = jnp.min(found.after, axis=0) - cost * found.log_probs_after
    target = jax.lax.stop_gradient(steps.rewards + steps.discounts * soft_value)
    errors = found.taken - jnp.broadcast_to(target, found.taken.shape)
    count = jnp.sum(steps.valid, dtype=jnp.float32)
    entropy = total_of(-found.log_probs)
    parts = {
        "losses/critic": total_of(jnp.mean(jnp.square(errors), axis=0)),
        "losses/policy": total_of(cost * found.log_probs - jnp.min(found.proposed, axis=0)),
    }
    if target_entropy is not None:
        parts["losses/temperature"] = entropy_cost * jax.lax.stop_gradient(entropy - target_entropy * count)
    total = sum(parts.values(), start=jnp.float32(0))
    metrics = {
        **parts,
        "losses/total": total,
        "policy/entropy": entropy,
        "policy/entropy_cost": entropy_cost * count,
        "critic/value": total_of(jnp.mean(found.taken, axis=0)),
        "critic/target": total_of(target),
        "critic/disagreement": total_of(jnp.max(found.taken, axis=0) - jnp.min(found.taken, axis=0)),
    }
    return LossOutput(total, count, jax.lax.stop_gradient(metrics), ())
