"""The loss of R2D2 (Kapturowski et al. 2019, section 2.3), and the priorities of unrolls.

An unroll has ``burn_in_steps + L + 1`` rows. The first only bring the recurrent state up to date; what follows, the
suffix, has L transitions. The TD error of one that is not valid (`aioseed.agents.transitions`) is 0, and n-step sums
and priorities stop before it.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents.agent import LossOutput
from aioseed.agents.r2d2.config import R2d2Config
from aioseed.agents.transitions import Transitions, transitions
from aioseed.ops.n_step import double_q_values, n_step_targets
from aioseed.ops.priorities import unroll_priority
from aioseed.ops.value_rescaling import rescale, unrescale


class Suffix(NamedTuple):
    """Hold what the suffix of B unrolls says, T = L; the batch axis is absent where one unroll is meant."""

    steps: Transitions  # leaves [T, B]
    action: jax.Array  # int[T, B], taken from the row that a transition leads away from


class Errors(NamedTuple):
    """Hold what one unroll's steps come to."""

    td: jax.Array  # float32[T], rescaled target minus Q; 0 where not valid
    valid: jax.Array  # bool[T]
    taken: jax.Array  # float32[T], Q of the taken actions, rescaled as the network gives it
    priority: jax.Array  # float32[]


def suffix_of(config: R2d2Config, reward: jax.Array, flags: jax.Array, action: jax.Array) -> Suffix:
    """Return what lies behind the burn-in, of columns [burn_in_steps + L + 1, B] as they are stored."""
    begin = config.burn_in_steps
    return Suffix(transitions(config, reward[begin:], flags[begin:]), action[begin:-1])


def td_errors(config: R2d2Config, rows: Suffix, online: jax.Array, target: jax.Array) -> Errors:
    """Return the errors of B unrolls, leaves [T, B] and [B]: ``h(G_t(h^-1(Q_target))) - Q_online(x_t, a_t)``.

    G is the n-step double-Q return. Gradients flow through Q of the taken actions alone.

    Args:
        config: Discount, n and epsilon of h.
        rows: The suffix.
        online: float32[T+1, B, A].
        target: float32[T+1, B, A]; `online` itself where there is no target network.
    """
    one = partial(_errors_of_one, config)
    axes = {"td": 1, "valid": 1, "taken": 1, "priority": 0}
    found = jax.vmap(lambda *columns: one(*columns)._asdict(), in_axes=1, out_axes=axes)(rows, online, target)
    return Errors(**found)


def r2d2_loss(
    config: R2d2Config, rows: Suffix, online: jax.Array, target: jax.Array, importance: jax.Array
) -> LossOutput:
    """Return ``sum over unrolls of importance * sum over valid steps of td^2 / 2``, counted in unrolls.

    aux holds the new priorities of the unrolls, float32[B].

    Args:
        config: As in `td_errors`.
        rows: As in `td_errors`.
        online: As in `td_errors`.
        target: As in `td_errors`.
        importance: float32[B], importance-sampling weights of the unrolls.
    """
    found = td_errors(config, rows, online, target)
    per_unroll = 0.5 * jnp.sum(jnp.square(found.td), axis=0)
    total = jnp.sum(importance * per_unroll)

    def mean_of(per_step: jax.Array) -> jax.Array:
        """Return the sum over unrolls of each one's mean over valid steps."""
        summed = jnp.sum(jnp.where(found.valid, per_step, 0.0), axis=0)
        return jnp.sum(summed / jnp.maximum(jnp.sum(found.valid, axis=0, dtype=jnp.float32), 1.0))

    metrics = {
        "losses/total": total,
        "q/mean": mean_of(unrescale(found.taken, config.rescaling_epsilon)),
        "q/td_error": mean_of(jnp.abs(found.td)),
        "replay/new_priority": jnp.sum(found.priority),
        "replay/importance": jnp.sum(importance),
    }
    count = jnp.float32(importance.shape[0])
    return LossOutput(total, count, jax.lax.stop_gradient(metrics), {"priorities": found.priority})


def _errors_of_one(config: R2d2Config, rows: Suffix, online: jax.Array, target: jax.Array) -> Errors:
    rewards, discounts, valid = rows.steps
    values = unrescale(double_q_values(online, target), config.rescaling_epsilon)
    returns = n_step_targets(rewards, discounts, values, valid, steps=config.n_steps)
    wanted = rescale(returns, config.rescaling_epsilon)
    taken = jnp.take_along_axis(online[:-1], rows.action[:, None].astype(jnp.int32), axis=-1)[:, 0]
    td = jnp.where(valid, wanted - taken, 0.0)
    priority = unroll_priority(jax.lax.stop_gradient(td), valid, max_share=config.priority_max_share)
    return Errors(td, valid, taken, priority)
