"""Networks with a memory that are simple enough to be written again in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from aioseed.nets.network import Network


def scanned(init: Callable, memory_size: int, step: Callable) -> Network:
    """Return the network whose unroll is its `step`, row after row."""

    def unroll(params, memory, inputs):
        def row(memory, inputs):
            outputs, memory = step(params, memory, inputs)
            return memory, outputs

        memory, outputs = jax.lax.scan(row, memory, inputs)
        return outputs, memory

    return Network(init, lambda: jnp.zeros(memory_size), step, unroll)


def remembering(without: Network, features: int, keep: float) -> Network:
    """Return what `without` computes, on ``memory = keep memory + observation`` in the place of the observation."""

    def step(params, memory, inputs):
        memory = jnp.where(inputs.first[:, None], 0.0, keep * memory) + inputs.observation
        return without.step(params, (), inputs._replace(observation=memory))[0], memory

    return scanned(without.init, features, step)
