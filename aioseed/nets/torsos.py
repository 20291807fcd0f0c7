"""Stacks of convolutions that make features of images, one Linen module each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from aioseed.nets.convolutions import (
    NARROW_CHANNELS,
    Convolution,
    Initializer,
    Weights,
    convolved,
    convolved_on_cpu,
    in_blocks,
    is_even,
    of_pairs,
    out_of_pairs,
    pooled,
    pooled_pairs,
    strided_in_blocks,
)


class NatureTorso(nn.Module):
    """Apply DQN's convolutions and dense layer (Mnih et al. 2015, Nature 518, Methods: Model architecture)."""

    hidden_units: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:  # [..., H, W, C] -> float32[..., hidden_units]
        """Return features of float32[..., H, W, C]."""
        return _strided(self, image, ((32, 8, 4), (64, 4, 2), (64, 3, 1)))


class ShallowTorso(nn.Module):
    """Apply the convolutions and the dense layer of IMPALA's shallow network (Espeholt et al. 2018, figure 3)."""

    hidden_units: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:  # [..., H, W, C] -> float32[..., hidden_units]
        """Return features of float32[..., H, W, C]."""
        return _strided(self, image, ((16, 8, 4), (32, 4, 2)))


class ResidualTorso(nn.Module):
    """Apply IMPALA's residual network (Espeholt et al. 2018, figure 3): in each stack a convolution and two blocks."""

    channels: tuple[int, ...]
    hidden_units: int
    dtype: jnp.dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:  # [..., H, W, C] -> float32[..., hidden_units]
        """Return features of float32[..., H, W, C]."""
        stacks, inputs, number = [], image.shape[-1], 0
        for channels in self.channels:
            weights = []
            for _ in range(5):
                weights.append(_weights(self, number, channels, 3, inputs))
                inputs, number = channels, number + 1
            stacks.append(_Stack(weights[0], ((weights[1], weights[2]), (weights[3], weights[4]))))
        flat = _one_batch(image).astype(self.dtype)
        found = _on_platform(_residual, _residual_in_blocks, flat, stacks)
        return _features(self, nn.relu(found), image.shape[:-3])


AnyTorso: TypeAlias = NatureTorso | ShallowTorso | ResidualTorso


class _Stack(NamedTuple):
    """Hold the weights of a stack of the residual network."""

    entering: Weights
    blocks: tuple[tuple[Weights, Weights], ...]


def _strided(torso: NatureTorso | ShallowTorso, image: jax.Array, layers: Sequence[tuple[int, int, int]]) -> jax.Array:
    """Return the features of strided convolutions, each (channels, kernel, stride); called in the compact method.

    A kernel must be a multiple of its stride.
    """
    found = _one_batch(image).astype(torso.dtype)
    for number, (channels, size, stride) in enumerate(layers):
        inputs = found.shape[-1]
        weights = _weights(torso, number, channels, size, inputs)
        narrow = inputs <= NARROW_CHANNELS
        far = strided_in_blocks if narrow else partial(convolved, padding="VALID")
        found = _on_platform(partial(convolved_on_cpu, padding="VALID"), far, found, weights, stride=stride)
        found = nn.relu(found)
    return _features(torso, found, image.shape[:-3])


def _residual(image: jax.Array, stacks: Sequence[_Stack]) -> jax.Array:
    for stack in stacks:
        image = pooled(convolved_on_cpu(image, stack.entering))
        for inner, outer in stack.blocks:
            image = image + convolved_on_cpu(nn.relu(convolved_on_cpu(nn.relu(image), inner)), outer)
    return image


def _residual_in_blocks(image: jax.Array, stacks: Sequence[_Stack]) -> jax.Array:
    """Return what `_residual` does, with layers of few channels in blocks."""
    for stack in stacks:
        if _is_narrow(image):
            image = pooled_pairs(convolved(in_blocks(image, 2), of_pairs(stack.entering)))
        else:
            image = pooled(convolved(image, stack.entering))
        if _is_narrow(image):
            pairs = in_blocks(image, 2)
            for inner, outer in stack.blocks:
                pairs = pairs + convolved(nn.relu(convolved(nn.relu(pairs), of_pairs(inner))), of_pairs(outer))
            image = out_of_pairs(pairs)
        else:
            for inner, outer in stack.blocks:
                image = image + convolved(nn.relu(convolved(nn.relu(image), inner)), outer)
    return image


def _is_narrow(image: jax.Array) -> bool:
    return image.shape[-1] <= NARROW_CHANNELS and is_even(image)


def _on_platform(
    near: Callable[..., jax.Array], far: Callable[..., jax.Array], *arguments: object, **options: int
) -> jax.Array:
    """Return what either form gives, computed by `near` on a CPU and by `far` anywhere else."""
    found: jax.Array = jax.lax.platform_dependent(
        *arguments, cpu=partial(near, **options), default=partial(far, **options)
    )
    return found


def _weights(torso: AnyTorso, number: int, channels: int, size: int, inputs: int) -> Weights:
    """Return the weights of a convolution; called inside the torso's compact method, which owns them."""
    layer = Convolution(channels, size, torso.kernel_init, name=f"Conv_{number}")
    return Weights(*layer(inputs))


def _one_batch(image: jax.Array) -> jax.Array:
    return image.reshape(-1, *image.shape[-3:])


def _features(torso: AnyTorso, image: jax.Array, leading: tuple[int, ...]) -> jax.Array:
    """Return float32[*leading, hidden_units], of a dense layer on the flattened image."""
    flat = image.reshape(*leading, -1)
    dense = nn.Dense(torso.hidden_units, dtype=torso.dtype, kernel_init=torso.kernel_init)
    features: jax.Array = nn.relu(dense(flat)).astype(jnp.float32)
    return features
