"""Stacks of convolutions that make features of images, one Linen module each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer: TypeAlias = Callable[..., jax.Array]
"""(key, shape, dtype) -> kernel."""


class NatureTorso(nn.Module):
    """Apply DQN's convolutions and dense layer (Mnih et al. 2015, Nature 518, Methods: Model architecture)."""

    hidden_units: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:  # [..., H, W, C] -> float32[..., hidden_units]
        """Return features of float32[..., H, W, C]."""
        for channels, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            convolution = _convolution(self, channels, kernel, stride=stride, padding="VALID")
            image = nn.relu(convolution(image))
        return _features(self, image)


class ShallowTorso(nn.Module):
    """Apply the convolutions and the dense layer of IMPALA's shallow network (Espeholt et al. 2018, figure 3)."""

    hidden_units: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:  # [..., H, W, C] -> float32[..., hidden_units]
        """Return features of float32[..., H, W, C]."""
        for channels, kernel, stride in ((16, 8, 4), (32, 4, 2)):
            convolution = _convolution(self, channels, kernel, stride=stride, padding="VALID")
            image = nn.relu(convolution(image))
        return _features(self, image)


class ResidualTorso(nn.Module):
    """Apply IMPALA's residual network (Espeholt et al. 2018, figure 3): in each stack a convolution and two blocks."""

    channels: tuple[int, ...]
    hidden_units: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:  # [..., H, W, C] -> float32[..., hidden_units]
        """Return features of float32[..., H, W, C]."""
        for channels in self.channels:
            image = _convolution(self, channels, 3)(image)
            image = nn.max_pool(image, (3, 3), strides=(2, 2), padding="SAME")  # type: ignore[no-untyped-call]
            for _ in range(2):
                inner = _convolution(self, channels, 3)(nn.relu(image))
                image = image + _convolution(self, channels, 3)(nn.relu(inner))
        return _features(self, nn.relu(image))


AnyTorso: TypeAlias = NatureTorso | ShallowTorso | ResidualTorso


def _convolution(torso: AnyTorso, channels: int, kernel: int, *, stride: int = 1, padding: str = "SAME") -> nn.Conv:
    """Return a convolution; called inside the torso's compact method, which owns it."""
    return nn.Conv(
        channels,
        (kernel, kernel),
        strides=(stride, stride),
        padding=padding,
        dtype=torso.dtype,
        kernel_init=torso.kernel_init,
    )


def _features(torso: AnyTorso, image: jax.Array) -> jax.Array:
    """Return float32[..., hidden_units], of a dense layer on the flattened image."""
    flat = image.reshape(*image.shape[:-3], -1)
    dense = nn.Dense(torso.hidden_units, dtype=torso.dtype, kernel_init=torso.kernel_init)
    features: jax.Array = nn.relu(dense(flat)).astype(jnp.float32)
    return features
