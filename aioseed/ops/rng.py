"""Noise that belongs to a step, not to the batch in which the step happened to be answered.

The uniforms of a row are a function of (run key, slot, epoch, sequence number) alone. Neither the other rows, nor the
row's place, nor the size of the batch changes them: that is what makes lockstep runs equal bit for bit, and a repeated
STEP get the action it got before.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank


def slot_uniforms(key: jax.Array, slot: jax.Array, epoch_low: jax.Array, sequence: jax.Array, count: int) -> jax.Array:
    """Return float32[B, count] in [0, 1), one row for each (slot, epoch, sequence number).

    Counter-based (Salmon et al. 2011, Threefry): slot and epoch select a row's key out of the run's, the sequence
    number is folded into it. That is two Threefry calls a row where folding the three words one by one takes four.

    Args:
        key: A Threefry key of `jax.random` (typed or raw), one per run.
        slot: int32 or uint32[B].
        epoch_low: uint32[B], the epoch folded to 32 bits.
        sequence: uint32[B].
        count: Uniforms a row, at least 1.

    Raises:
        ValueError: The key is not a Threefry key (the others' noise depends on the batch), or a shape is wrong.
    """
    check_rank(1, slot=slot, epoch_low=epoch_low, sequence=sequence)
    check_kind(jnp.integer, slot=slot, epoch_low=epoch_low, sequence=sequence)
    check_length(slot.shape[0], epoch_low=epoch_low, sequence=sequence)
    # Keys of neighbouring seeds differ in few bits, as slots and epochs do: unfolded, two runs would share noise.
    run = jax.random.key_data(jax.random.fold_in(key, 0))
    if run.shape != (2,):
        raise ValueError(f"the key must be one Threefry key, its data has shape {run.shape}")
    words = jnp.stack([slot.astype(jnp.uint32) ^ run[0], epoch_low.astype(jnp.uint32) ^ run[1]], axis=-1)

    def row(words: jax.Array, sequence: jax.Array) -> jax.Array:
        row_key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(row_key, sequence), (count,), jnp.float32)

    return jax.vmap(row)(words, sequence.astype(jnp.uint32))
