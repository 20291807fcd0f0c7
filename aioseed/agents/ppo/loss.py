"""The loss of the PPO agent (Schulman et al. 2017, arXiv:1707.06347), as sums over valid steps.

The old policy of the paper is the one that acted: the probability with which an action was taken came along with it.
Advantages are estimated anew in each pass over a batch, as values are then (Andrychowicz et al. 2021, arXiv:2006.05990,
section 3.5, found that better than keeping the first).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from aioseed.agents.actor_critic import Outputs, Terms, actor_critic_loss
from aioseed.agents.agent import LossOutput
from aioseed.agents.ppo.config import PpoConfig
from aioseed.agents.ppo.scale import Scale
from aioseed.agents.transitions import Transitions
from aioseed.ops import losses
from aioseed.ops.advantages import Advantages, generalized_advantages


def ppo_loss(
    config: PpoConfig, scale: Scale, steps: Transitions, found: Outputs, entropy_cost: jax.Array
) -> LossOutput:
    """Return the loss of `actor_critic_loss` with the clipped surrogate objective.

    Args:
        config: Coefficients and clipping.
        scale: What values and advantages are measured in.
        steps: The transitions of B unrolls.
        found: What the policies say of them; values as the network says them.
        entropy_cost: float32[].
    """
    terms = jax.vmap(partial(_terms, config, scale), in_axes=1, out_axes=1)(steps, found)
    return actor_critic_loss(config, steps, found, entropy_cost, terms)


def seen(config: PpoConfig, scale: Scale, steps: Transitions, said: jax.Array) -> Scale:
    """Return the scale once these transitions were seen, as the policy that acted values them.

    Args:
        config: Options.
        scale: What values were measured in.
        steps: The transitions of B unrolls.
        said: float32[T+1, B], what its network said of the rows.
    """
    acted = jnp.zeros_like(steps.rewards)
    estimated = jax.vmap(partial(_estimate, config), in_axes=1, out_axes=1)(steps, acted, scale.values(said))
    return scale.after(estimated.targets, estimated.advantages, steps.valid)


def _estimate(config: PpoConfig, steps: Transitions, log_ratios: jax.Array, values: jax.Array) -> Advantages:
    return generalized_advantages(
        log_ratios,
        steps.discounts,
        steps.rewards,
        values,
        steps.valid,
        lambda_=config.lambda_,
        clip_rho=config.clip_rho,
    )


def _terms(config: PpoConfig, scale: Scale, steps: Transitions, found: Outputs) -> Terms:
    """Return the terms of one unroll; without the batch axis."""
    # At a border the action means nothing, and a ratio there that is no number would make all gradients NaN.
    log_ratios = jnp.where(steps.valid, found.log_probs - found.behaviour_log_probs, 0.0)
    values = scale.values(found.values)
    estimated = _estimate(config, steps, log_ratios, values)
    outside = jnp.abs(jnp.expm1(log_ratios)) > config.clip_ratio
    return Terms(
        losses.clipped_surrogate(log_ratios, scale.advantages(estimated.advantages), config.clip_ratio),
        losses.value_error(found.values[:-1], scale.said(estimated.targets)),
        {},
        {
            "policy/kl": losses.behaviour_kl(found.behaviour_log_probs, found.log_probs),
            "ppo/ratio_clipped_share": outside.astype(jnp.float32),
            "value/mean": values[:-1],
            "value/target": estimated.targets,
        },
    )
