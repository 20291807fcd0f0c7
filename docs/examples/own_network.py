"""Networks of one's own: layer normalisation for whatever flattens to a vector, and convolutions beside numbers.

Name one in a preset as ``own_network:normalised_mlp``; its keyword arguments are the options.
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from aioseed.nets.layers import Outputs
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
from aioseed.nets.torsos import NatureTorso
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


class CameraAndJoints(nn.Module):
    """See a picture with DQN's convolutions, and numbers and an index beside it."""

    heads: Heads
    units: int

    @nn.compact
    def __call__(self, observation: dict[str, jax.Array], action: jax.Array | None) -> NetworkOutputs:
        """Map leaves [N, ...] and, for heads that take one, the action float32[N, A] to float32[N, size] each."""
        torso = NatureTorso(self.units, jnp.dtype("float32"), nn.initializers.lecun_normal())
        seen = torso(observation["camera"].astype(jnp.float32) / 255)
        mode = jax.nn.one_hot(observation["mode"], 3)  # an index means nothing as a number
        features = jnp.concatenate([seen, observation["joints"], mode], axis=-1)
        hidden = nn.relu(nn.Dense(self.units)(features))
        return cast("NetworkOutputs", Outputs(self.heads, (self.units,), "relu")(hidden, action))


def camera_and_joints(observation: ObservationSpec, action: ActionSpec, heads: Heads, *, units: int = 256) -> Network:
    """Return the network for observations of a picture ``camera``, numbers ``joints`` and an index ``mode`` below 3."""
    module = CameraAndJoints(heads, units)
    example = example_inputs(observation, action)

    def init(key: jax.Array) -> PyTree:
        return module.init(key, example.observation, example.action)["params"]

    def apply(params: PyTree, inputs: NetworkInputs) -> NetworkOutputs:
        return cast("NetworkOutputs", module.apply({"params": params}, inputs.observation, inputs.action))

    return feed_forward(init, apply)
