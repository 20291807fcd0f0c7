"""The loss of the V-trace agent (IMPALA, Espeholt et al. 2018, section 4), as sums over valid steps.

Which steps are valid is said in `aioseed.agents.transitions`; why the others do not count, in `aioseed.ops.vtrace`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents.agent import LossOutput, Unroll
from aioseed.agents.transitions import Transitions
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.ops import losses
from aioseed.ops.distributions import ActionDistribution, Sample
from aioseed.ops.vtrace import vtrace


class Outputs(NamedTuple):
    """Hold what the policies, the learned one and the one that acted, say of the rows of unrolls."""

    log_probs: jax.Array  # float32[T, B], of the taken actions
    behaviour_log_probs: jax.Array  # float32[T, B]
    entropies: jax.Array  # float32[T, B]
    values: jax.Array  # float32[T+1, B]


class Terms(NamedTuple):
    """Hold the terms of the loss without their coefficients, and what is worth watching."""

    policy: jax.Array  # float32[T, B]
    value: jax.Array  # float32[T, B]
    kl: jax.Array  # float32[T, B]
    target: jax.Array  # float32[T, B]
    rho_clipped: jax.Array  # float32[T, B], 1 where clip_rho bounds the importance weight


def outputs(distribution: ActionDistribution, policy: jax.Array, values: jax.Array, unroll: Unroll) -> Outputs:
    """Return the outputs, of policy parameters [T+1, B, P] and values [T+1, B].

    Of the last row only the value counts: its action belongs to the next unroll.
    """
    params = policy[:-1]
    sample = jax.tree.map(lambda leaf: leaf[:-1], Sample(unroll.action, unroll.extras["hidden"]))
    return Outputs(
        distribution.log_prob(params, sample),
        unroll.extras["behaviour_log_prob"][:-1],
        distribution.entropy(params),
        values,
    )


def vtrace_loss(config: VtraceConfig, steps: Transitions, found: Outputs, entropy_cost: jax.Array) -> LossOutput:
    """Return the loss, summed over valid steps.

    ``total = policy + baseline_cost * value - entropy_cost * entropy + kl_cost * kl``, and with a target entropy also
    ``entropy_cost * (entropy - target)``, whose gradient goes to the cost alone: it rises while the entropy is too low.

    Args:
        config: Coefficients and clipping.
        steps: The transitions of B unrolls.
        found: What the policies say of them.
        entropy_cost: float32[].
    """

    def total_of(per_step: jax.Array) -> jax.Array:
        return losses.masked_sum(per_step, steps.valid)

    terms = jax.vmap(partial(_terms, config), in_axes=1, out_axes=1)(steps, found)
    count = jnp.sum(steps.valid, dtype=jnp.float32)
    entropy, kl = total_of(found.entropies), total_of(terms.kl)
    parts = {
        "losses/policy": total_of(terms.policy),
        "losses/value": config.baseline_cost * total_of(terms.value),
        "losses/entropy": -jax.lax.stop_gradient(entropy_cost) * entropy,
        "losses/kl": config.kl_cost * kl,
    }
    total = parts["losses/policy"] + parts["losses/value"] + parts["losses/entropy"] + parts["losses/kl"]
    if config.target_entropy is not None:
        total = total + entropy_cost * jax.lax.stop_gradient(entropy - config.target_entropy * count)
    metrics = {
        **parts,
        "losses/total": total,
        "policy/entropy": entropy,
        "policy/entropy_cost": entropy_cost * count,
        "policy/kl": kl,
        "value/mean": total_of(found.values[:-1]),
        "value/target": total_of(terms.target),
        "vtrace/rho_clipped_share": total_of(terms.rho_clipped),
    }
    return LossOutput(total, count, jax.lax.stop_gradient(metrics), ())


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
    return Terms(
        losses.policy_gradient(found.log_probs, corrected.advantages),
        losses.value_error(found.values[:-1], corrected.targets),
        losses.behaviour_kl(found.behaviour_log_probs, found.log_probs),
        corrected.targets,
        (log_rhos > bound).astype(jnp.float32),
    )
