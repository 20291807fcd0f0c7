"""A network of one's own: a Linen module with layer normalisation, for any observation that flattens to a vector.

Name it in a preset as ``own_network:normalised_mlp``; its keyword arguments are the options.
"""

from __future__ import annotations

from typing import cast

import jax
from flax import linen as nn

from aioseed.nets.network import (
    Heads,
    Network,
    NetworkInputs,
    NetworkOutputs,
    PyTree,
    example_inputs,
    feed_forward,
    flatten_observation,
    refuse_action_heads,
)
from aioseed.specs import ActionSpec, ObservationSpec


class NormalisedMlp(nn.Module):
    """Normalise each hidden layer."""

    heads: Heads
    units: int

    @nn.compact
    def __call__(self, features: jax.Array) -> NetworkOutputs:
        """Map float32[N, F] to one float32[N, size] for each head."""
        for _ in range(2):
            features = nn.relu(nn.LayerNorm()(nn.Dense(self.units)(features)))
        return {name: nn.Dense(head.size, name=name)(features) for name, head in self.heads.items()}


def normalised_mlp(observation: ObservationSpec, action: ActionSpec, heads: Heads, *, units: int = 64) -> Network:
    """Return the network for an environment and the outputs that an agent wants."""
    refuse_action_heads(heads)
    module = NormalisedMlp(heads, units)
    example = flatten_observation(observation, example_inputs(observation, action).observation)

    def init(key: jax.Array) -> PyTree:
        return module.init(key, example)["params"]

    def apply(params: PyTree, inputs: NetworkInputs) -> NetworkOutputs:
        features = flatten_observation(observation, inputs.observation)
        return cast("NetworkOutputs", module.apply({"params": params}, features))

    return feed_forward(init, apply)
