"""Linen layers that the networks here share: a stack of dense layers and the heads on top."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from aioseed.nets.dense import dense
from aioseed.nets.network import Head, Heads, NetworkOutputs

Activation: TypeAlias = Literal["tanh", "relu", "swish"]
_ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu, "swish": nn.swish}


def check_layers(activation: str, **units: int | tuple[int, ...]) -> None:
    """Raise ValueError unless the activation is one of ours and all layers have units; for options that users write."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(sorted(_ACTIVATIONS))}, not {activation!r}")
    for name, sizes in units.items():
        for size in sizes if isinstance(sizes, tuple) else (sizes,):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be made of positive integers, not {size!r}")


class Torso(nn.Module):
    """Map features to features through dense layers; kernels Glorot-uniform and biases 0, as in SEED RL."""

    hidden: tuple[int, ...]
    activation: Activation

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:  # [..., F] -> [..., hidden[-1]]
        """Apply the layers to float32[..., F]."""
        for units in self.hidden:
            layer = dense(units, kernel_init=nn.initializers.glorot_uniform())
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


class DuelingOutputs(nn.Module):
    """Split every head into a value and advantages whose mean is 0 (Wang et al. 2016, arXiv:1511.06581, eq. 9).

    None may take the action: the advantage of a single number, Q(x, a), would cancel.
    """

    heads: Heads
    units: int

    @nn.compact
    def __call__(self, features: jax.Array) -> NetworkOutputs:  # [..., F] -> {name: [..., size]}
        """Return every head's output for float32[..., F]."""
        outputs = {}
        for name, head in sorted(self.heads.items()):
            value = self._stream(features, Head(1, head.scale), f"{name}_value", use_bias=True)
            # Without a bias, as in SEED RL: the mean of the biases would cancel.
            advantages = self._stream(features, head, f"{name}_advantage", use_bias=False)
            outputs[name] = value + advantages - jnp.mean(advantages, axis=-1, keepdims=True)
        return outputs

    def _stream(self, features: jax.Array, head: Head, name: str, *, use_bias: bool) -> jax.Array:
        layer = dense(self.units, kernel_init=nn.initializers.glorot_uniform(), name=f"{name}_hidden")
        hidden = nn.relu(layer(features))
        result: jax.Array = head_layer(head, name, use_bias=use_bias)(hidden)
        return result


def head_layer(head: Head, name: str, *, use_bias: bool = True) -> nn.Dense:
    """Return the last layer of a head; its outputs begin with about `head.scale` times the spread of its inputs."""
    return dense(
        head.size,
        use_bias=use_bias,
        kernel_init=nn.initializers.variance_scaling(head.scale**2, "fan_in", "uniform"),
        name=name,
    )
