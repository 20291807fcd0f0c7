"""SEED RL's network for football: its size, and that packed bits are the layers that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from aioseed_football.learner import resnet  # noqa: E402

from aioseed.nets.network import Head, example_inputs  # noqa: E402
from aioseed.specs import ArraySpec, discrete  # noqa: E402

HEADS = {"policy": Head(19), "value": Head(1)}


def parameters(observation, **options):
    network = resnet(observation, discrete(19), HEADS, **options)
    return jax.eval_shape(network.init, jax.random.key(0))


def test_it_has_the_weights_of_the_published_network():
    leaves = jax.tree_util.tree_leaves(parameters(ArraySpec("uint8", (72, 96, 16))))
    convolutions = 0
    before = 16
    for channels in (16, 32, 32, 32):
        convolutions += 9 * before * channels + channels + 4 * (9 * channels * channels + channels)
        before = channels
    # 72x96 is halved four times, rounded up: 5x6.
    dense = 5 * 6 * 32 * 256 + 256
    heads = 257 * 19 + 257
    assert len(leaves) == 2 * (20 + 1 + 2)
    assert sum(leaf.size for leaf in leaves) == convolutions + dense + heads


def test_packed_bits_give_what_the_layers_give():
    action = discrete(19)
    layers = (np.random.default_rng(0).random((2, 6, 8, 4)) < 0.3).astype(np.uint8)
    outputs = []
    for picture, options in ((layers, {}), (np.packbits(layers, axis=-1), {"packed_layers": 4})):
        spec = ArraySpec("uint8", picture.shape[1:])
        network = resnet(spec, action, HEADS, channels=(4,), blocks=1, units=8, **options)
        inputs = example_inputs(spec, action, (2,))._replace(observation=picture)
        outputs.append(network.step(network.init(jax.random.key(1)), (), inputs)[0])
    for name in HEADS:
        assert outputs[0][name].shape == (2, HEADS[name].size)
        np.testing.assert_array_equal(outputs[0][name], outputs[1][name])


@pytest.mark.parametrize(
    ("observation", "options", "said"),
    [
        (ArraySpec("float32", (115,)), {}, "observes one picture"),
        (ArraySpec("uint8", (72, 96, 1)), {"packed_layers": 9}, "packed_layers is 9"),
        (ArraySpec("uint8", (72, 96, 4)), {"channels": (0,)}, "channels must be made of positive integers"),
    ],
)
def test_what_it_cannot_take_is_said(observation, options, said):
    with pytest.raises(ValueError, match=said):
        resnet(observation, discrete(19), HEADS, **options)
