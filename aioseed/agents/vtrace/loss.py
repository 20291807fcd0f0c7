"""The loss of the V-trace agent (IMPALA, Espeholt et al. 2018, section 4), as sums over valid steps.

Which steps are valid is said in `aioseed.agents.transitions`; why the others do not count, in `aioseed.ops.vtrace`.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from aioseed.agents.actor_critic import Outputs, Terms, actor_critic_loss
from aioseed.agents.agent import LossOutput
from aioseed.agents.transitions import Transitions
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.ops import losses
from aioseed.ops.vtrace import vtrace


def vtrace_loss(config: VtraceConfig, steps: Transitions, found: Outputs, entropy_cost: jax.Array) -> LossOutput:
    """Return the loss of `actor_critic_loss` with the gradient of V-trace and ``kl_cost * kl``.

    Args:
        config: Coefficients and clipping.
        steps: The transitions of B unrolls.
        found: What the policies say of them.
        entropy_cost: float32[].
    """
    terms = jax.vmap(partial(_terms, config), in_axes=1, out_axes=1)(steps, found)
    return actor_critic_loss(config, steps, found, entropy_cost, terms)


def _terms(config: VtraceConfig, steps: Transitions, found: Outputs) -> Terms:
    """Return the terms of one unroll; without the batch axis."""
    log_rhos = found.log_probs - found.behaviour_log_probs
    corrected = vtrace(
        log_rhos,
        steps.discounts,
        steps.rewards,
        found.values,
        steps.valid,
        lambda_=config.lambda_,
        clip_rho=config.clip_rho,
        clip_pg_rho=config.clip_pg_rho,
    )
    bound = math.inf if config.clip_rho is None else math.log(config.clip_rho)
    kl = losses.behaviour_kl(found.behaviour_log_probs, found.log_probs)
    return Terms(
        losses.policy_gradient(found.log_probs, corrected.advantages),
        losses.value_error(found.values[:-1], corrected.targets),
        {"losses/kl": config.kl_cost * kl},
        {
            "policy/kl": kl,
            "value/mean": found.values[:-1],
            "value/target": corrected.targets,
            "vtrace/rho_clipped_share": (log_rhos > bound).astype(jnp.float32),
        },
    )
