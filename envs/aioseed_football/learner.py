"""SEED RL's network for football: the deep ResNet of IMPALA with a fourth stack, without memory (learner side)."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from aioseed.nets.layers import Outputs, check_layers
from aioseed.nets.network import Heads, Network, NetworkInputs, NetworkOutputs, PyTree, example_inputs, feed_forward
from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec


def resnet(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    channels: tuple[int, ...] = (16, 32, 32, 32),
    blocks: int = 2,
    units: int = 256,
    packed_layers: int | None = None,
) -> Network:
    """Return residual stacks on one picture, a dense layer and the heads; previous action and reward are not used.

    Each stack convolves (3x3), halves the picture (max pooling, 3x3 in steps of 2) and adds `blocks` residual blocks of
    two convolutions (Espeholt et al. 2018, arXiv:1802.01561, figure 3; football's fourth stack: Espeholt et al. 2020,
    arXiv:1910.06591).

    Args:
        observation: One array [rows, columns, layers] of numbers from 0 to 1, or of packed bits.
        action: Not used by the torso.
        heads: Outputs, each a dense layer.
        channels: Channels of each stack.
        blocks: Residual blocks of a stack.
        units: Units of the dense layer below the heads.
        packed_layers: Layers that lie in the bits of the last axis, the first one highest; null where each is a number.

    Raises:
        ValueError: The observation is no picture, or an option is not one of those above.
    """
    if not isinstance(observation, ArraySpec) or len(observation.shape) != 3:
        raise ValueError("this network observes one picture of shape [rows, columns, layers]")
    channels = tuple(channels)
    check_layers("relu", channels=channels, blocks=blocks, units=units)
    if packed_layers is not None:
        held = 8 * observation.shape[-1]
        if observation.dtype != "uint8" or not 1 <= packed_layers <= held:
            raise ValueError(
                f"packed_layers is {packed_layers}: {observation.dtype} {observation.shape} has no such bits"
            )
    module = _ResNet(heads, channels, blocks, units, packed_layers)
    example = example_inputs(observation, action)

    def init(key: jax.Array) -> PyTree:
        return module.init(key, example.observation, example.action)["params"]

    def apply(params: PyTree, inputs: NetworkInputs) -> NetworkOutputs:
        return cast("NetworkOutputs", module.apply({"params": params}, inputs.observation, inputs.action))

    return feed_forward(init, apply)


def unpacked(picture: jax.Array, layers: int) -> jax.Array:
    """Return float32[..., layers] of 0 and 1 for packed bits uint8[..., ceil(layers / 8)]: `numpy.unpackbits`."""
    bits = jnp.unpackbits(picture, axis=-1, count=layers, bitorder="big")
    return bits.astype(jnp.float32)


class _Stack(nn.Module):
    channels: int
    blocks: int

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:  # [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), channels]
        picture = self._convolved(picture)
        picture = nn.max_pool(picture, (3, 3), (2, 2), "SAME")  # type: ignore[no-untyped-call]
        for _ in range(self.blocks):
            change = self._convolved(nn.relu(picture))
            picture = picture + self._convolved(nn.relu(change))
        return picture

    def _convolved(self, picture: jax.Array) -> jax.Array:
        result: jax.Array = nn.Conv(self.channels, (3, 3), kernel_init=nn.initializers.lecun_normal())(picture)
        return result


class _ResNet(nn.Module):
    heads: Heads
    channels: tuple[int, ...]
    blocks: int
    units: int
    packed_layers: int | None

    @nn.compact
    def __call__(self, picture: jax.Array, action: jax.Array | None) -> NetworkOutputs:
        layers = self.packed_layers
        picture = picture.astype(jnp.float32) if layers is None else unpacked(picture, layers)
        for channels in self.channels:
            picture = _Stack(channels, self.blocks)(picture)
        features = nn.relu(picture).reshape(picture.shape[0], -1)
        features = nn.relu(nn.Dense(self.units, kernel_init=nn.initializers.lecun_normal())(features))
        outputs: NetworkOutputs = Outputs(self.heads, (self.units,), "relu")(features, action)
        return outputs
