"""Priorities of unrolls in replay: how surprising an unroll is as a whole, out of the TD errors of its steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank


def unroll_priority(errors: jax.Array, valid: jax.Array, *, max_share: float = 0.9) -> jax.Array:
    """Return float32[], ``eta max |delta| + (1 - eta) mean |delta|`` (Kapturowski et al. 2019, R2D2, section 2.3).

    Maximum and mean are over valid steps; without any the priority is 0.

    Args:
        errors: float32[T], TD errors; their sign does not matter, and where not valid they may hold anything.
        valid: bool[T].
        max_share: eta, between 0 and 1.
    """
    check_rank(1, errors=errors, valid=valid)
    check_kind(jnp.floating, errors=errors)
    check_kind(jnp.bool_, valid=valid)
    check_length(errors.shape[0], valid=valid)
    sizes = jnp.where(valid, jnp.abs(errors), 0.0)
    mean = jnp.sum(sizes) / jnp.maximum(jnp.sum(valid, dtype=sizes.dtype), 1.0)
    return max_share * jnp.max(sizes) + (1.0 - max_share) * mean
