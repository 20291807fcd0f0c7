"""Linen layers that the networks here share: a stack of dense layers and the heads on top."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from aioseed.nets.network import Head, Heads, NetworkOutputs

Activation: TypeAlias = Literal["tanh", "relu", "swish"]
_ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu, "swish": nn.swish}


class Torso(nn.Module):
    """Map features to features through dense layers; kernels Glorot-uniform and biases 0, as in SEED RL."""

    hidden: tuple[int, ...]
    activation: Activation

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:  # [..., F] -> [..., hidden[-1]]
        """Apply the layers to float32[..., F]."""
        for units in self.hidden:
            layer = nn.Dense(units, kernel_init=nn.initializers.glorot_uniform())
            features = _ACTIVATIONS[self.activation](layer(features))
        return features


class Outputs(nn.Module):
    """Put one dense layer for each head on top of shared features; below a head that takes the action, a torso too."""

    heads: Heads
    hidden: tuple[int, ...]
    activation: Activation

    @nn.compact
    def __call__(self, features: jax.Array, action: jax.Array | None) -> NetworkOutputs:
        """Return every head's output [..., size] for features float32[..., F] and the action float32[..., A]."""
        outputs = {}
        for name, head in sorted(self.heads.items()):
            seen = features
            if head.takes_action:
                # One dense layer on features and action could not say that an action is good here and bad there.
                seen = Torso(self.hidden, self.activation, name=f"{name}_torso")(with_action(features, action))
            outputs[name] = head_layer(head, name)(seen)
        return outputs


def with_action(features: jax.Array, action: jax.Array | None) -> jax.Array:
    """Return float32[..., F + A].

    Raises:
        ValueError: No action was given to a network with a head that takes one.
    """
    if action is None:
        raise ValueError("a head takes the action, and NetworkInputs.action is None")
    return jnp.concatenate([features, action], axis=-1)


def head_layer(head: Head, name: str) -> nn.Dense:
    """Return the last layer of a head; its outputs begin with about `head.scale` times the spread of its inputs."""
    return nn.Dense(
        head.size, kernel_init=nn.initializers.variance_scaling(head.scale**2, "fan_in", "uniform"), name=name
    )
