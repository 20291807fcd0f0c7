"""The exploration ladder: every slot has an epsilon of its own, from often at random to hardly ever."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.agents.r2d2.config import ExplorationConfig
from aioseed.ops._check import check_kind, check_rank


def van_der_corput(numbers: jax.Array) -> jax.Array:
    """Return float32[B], the base-2 van der Corput sequence: the bits of each number mirrored at the binary point.

    Any first n elements are spread evenly over [0, 1) (van der Corput 1935). Exact for numbers below 2^24.

    Args:
        numbers: uint32[B].
    """
    check_rank(1, numbers=numbers)
    check_kind(jnp.unsignedinteger, numbers=numbers)
    bits = numbers.astype(jnp.uint32)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        keep, by = jnp.uint32(mask), jnp.uint32(shift)
        bits = ((bits >> by) & keep) | ((bits & keep) << by)
    # Only as many bits as a float32 holds: rounding up would give 1.
    fractions: jax.Array = (bits >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2.0**-24)
    return fractions


def epsilons(config: ExplorationConfig, slot: jax.Array, evaluation: jax.Array) -> jax.Array:
    """Return float32[B], the probability with which each row's environment acts at random.

    A ladder of fixed size begins anew at slots beyond it.

    Args:
        config: The ladder.
        slot: int32 or uint32[B].
        evaluation: bool[B], True where the environment is leased in the role evaluate.
    """
    if config.ladder_size is None:
        place = van_der_corput(slot.astype(jnp.uint32))
    else:
        size = config.ladder_size
        place = (slot.astype(jnp.int32) % size).astype(jnp.float32) / max(size - 1, 1)
    exponent = config.first_exponent + (config.last_exponent - config.first_exponent) * place
    training = jnp.float32(config.base) ** exponent
    return jnp.where(evaluation, jnp.float32(config.evaluation_epsilon), training)
