"""The presets of football build the agents that they promise."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")

from aioseed.actor.probe import describe  # noqa: E402
from aioseed.host.acting import build_agent  # noqa: E402
from aioseed.host.config import load_config  # noqa: E402


def parameters(preset):
    config = load_config(preset)
    spec = describe(config.environment).spec
    transforms = [section.section() for section in config.transforms]
    built = build_agent(config.agent.section(), config.network.section(), spec, transforms)
    return jax.tree_util.tree_leaves(jax.eval_shape(built.agent.init, jax.random.key(0)).params)


def test_the_published_preset_has_the_weights_of_the_published_network():
    leaves = parameters("football")
    convolutions, before = 0, 16  # four layers, four minimaps
    for channels in (16, 32, 32, 32):
        convolutions += 9 * before * channels + channels + 4 * (9 * channels * channels + channels)
        before = channels
    # 72x96 is halved four times, rounded up: 5x6.
    dense = 5 * 6 * 32 * 256 + 256
    heads = 257 * 19 + 257
    assert len(leaves) == 2 * (20 + 1 + 2)
    assert sum(leaf.size for leaf in leaves) == convolutions + dense + heads


def test_the_small_preset_is_a_perceptron_on_115_numbers():
    kernels = sorted(leaf.shape for leaf in parameters("football-empty-goal") if leaf.ndim == 2)
    assert kernels == [(64, 1), (64, 19), (115, 128), (128, 64), (128, 64), (128, 128)]
