"""A multilayer perceptron for vectors and small trees of them; no memory."""

from __future__ import annotations

from typing import cast

import jax
from flax import linen as nn

from aioseed.nets.layers import Activation, Outputs, Torso, check_layers, head_layer, with_action
from aioseed.nets.network import (
    Heads,
    Network,
    NetworkInputs,
    NetworkOutputs,
    PyTree,
    example_inputs,
    feed_forward,
    flatten_observation,
)
from aioseed.specs import ActionSpec, ObservationSpec


def mlp(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    hidden: tuple[int, ...] = (64, 64),
    activation: Activation = "tanh",
    shared_torso: bool = False,
) -> Network:
    """Return a perceptron on the flattened observation; the previous action and the reward are not used.

    Args:
        observation: Any tree; see `aioseed.nets.network.flatten_observation` for how leaves become numbers.
        action: Says how wide an action is, for heads that take one.
        heads: Outputs, each a dense layer on the last hidden one. A head that takes the action has hidden layers of its
            own: on observation and action, or on the shared torso and the action.
        hidden: Units of the hidden layers.
        activation: Applied after every hidden layer.
        shared_torso: True computes all heads from one stack of hidden layers. False gives each head a stack of its own:
            more work a step, fewer steps to learn (about half on CartPole), since the heads do not pull at one another.

    Raises:
        ValueError: An option is not one of those above.
    """
    hidden = tuple(hidden)
    check_layers(activation, hidden=hidden)
    module = _Mlp(heads, hidden, activation, shared_torso)
    example = example_inputs(observation, action)

    def init(key: jax.Array) -> PyTree:
        return module.init(key, flatten_observation(observation, example.observation), example.action)["params"]

    def apply(params: PyTree, inputs: NetworkInputs) -> NetworkOutputs:
        features = flatten_observation(observation, inputs.observation)
        return cast("NetworkOutputs", module.apply({"params": params}, features, inputs.action))

    return feed_forward(init, apply)


class _Mlp(nn.Module):
    heads: Heads
    hidden: tuple[int, ...]
    activation: Activation
    shared_torso: bool

    @nn.compact
    def __call__(self, features: jax.Array, action: jax.Array | None) -> NetworkOutputs:
        if self.shared_torso:
            shared = Torso(self.hidden, self.activation)(features)
            return Outputs(self.heads, self.hidden[-1:], self.activation)(shared, action)
        outputs = {}
        for name, head in sorted(self.heads.items()):
            seen = with_action(features, action) if head.takes_action else features
            outputs[name] = head_layer(head, name)(Torso(self.hidden, self.activation, name=f"{name}_torso")(seen))
        return outputs
