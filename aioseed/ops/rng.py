"""Noise that belongs to a step, not to the batch in which the step happened to be answered.

The uniforms of a row are a function of (run key, slot, epoch, sequence number) alone. Neither the other rows, nor the
row's place, nor the size of the batch changes them: that is what makes lockstep runs equal bit for bit, and a repeated
STEP get the action it got before.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_length, check_rank

Pair: TypeAlias = tuple[jax.Array, jax.Array]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def slot_uniforms(key: jax.Array, slot: jax.Array, epoch_low: jax.Array, sequence: jax.Array, count: int) -> jax.Array:
    """Return float32[B, count] in [0, 1), one row for each (slot, epoch, sequence number).

    Counter-based: slot and epoch select a row's key out of the run's, the sequence number is folded into it, and what
    that key gives is what `jax.random.uniform` would. Two Threefry calls a row and one more for each uniform.

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
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    if data.shape != (2,):
        raise ValueError(f"the key must be one Threefry key, its data has shape {data.shape}")
    zero = jnp.uint32(0)
    # Keys of neighbouring seeds differ in few bits, as slots and epochs do: unfolded, two runs would share noise.
    run = _threefry((data[0], data[1]), (zero, zero))
    rows = (slot.astype(jnp.uint32) ^ run[0], epoch_low.astype(jnp.uint32) ^ run[1])
    keys = _threefry(rows, (zero, sequence.astype(jnp.uint32)))
    high, low = _threefry((keys[0][:, None], keys[1][:, None]), (zero, jnp.arange(count, dtype=jnp.uint32)[None]))
    # 23 bits become the fraction of a number in [1, 2).
    fraction = ((high ^ low) >> 9) | jnp.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(fraction, jnp.float32) - 1.0


def _threefry(key: Pair, counter: Pair) -> Pair:
    """Return Threefry-2x32 with 20 rounds of a counter (Salmon et al. 2011, section 3.3).

    `jax.random` computes the same on a CPU as a loop of five turns, which takes ten times as long for a batch of rows;
    written out, XLA makes one vectorised pass of it.
    """
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    left, right = counter[0] + keys[0], counter[1] + keys[1]
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            left = left + right
            right = left ^ ((right << distance) | (right >> (32 - distance)))
        left = left + keys[(block + 1) % 3]
        right = right + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return left, right
