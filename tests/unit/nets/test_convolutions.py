"""Convolutions in blocks and those of CPUs: the numbers and gradients of those as written, which are Flax's own."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from aioseed.nets.convolutions import (
    Weights,
    convolved,
    convolved_on_cpu,
    in_blocks,
    of_pairs,
    out_of_pairs,
    pooled,
    pooled_pairs,
    strided_in_blocks,
)
from aioseed.nets.torsos import ResidualTorso, _residual, _residual_in_blocks, _Stack


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def weights(size: int, channels: int, outputs: int, seed: int = 7) -> Weights:
    return Weights(normal(seed, size, size, channels, outputs), normal(seed + 1, outputs))


def agree(as_written, otherwise, *arguments) -> None:
    """Compare values and all gradients of two functions of the same arguments."""

    def both(function, arguments):
        found, back = jax.vjp(function, *arguments)
        return found, back(normal(99, *found.shape))

    found, gradients = jax.jit(partial(both, otherwise))(arguments)
    expected, expected_gradients = jax.jit(partial(both, as_written))(arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), gradients, expected_gradients)


def test_as_written_is_flax():
    layer = nn.Conv(5, (3, 3), strides=(2, 2), padding="VALID")
    image, ours = normal(1, 2, 9, 8, 3), weights(3, 3, 5)
    expected = layer.apply({"params": ours._asdict()}, image)
    np.testing.assert_array_equal(convolved(image, ours, stride=2, padding="VALID"), expected)


@pytest.mark.parametrize("form", [strided_in_blocks, partial(convolved_on_cpu, padding="VALID")])
@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(8, 4, (16, 20)), (8, 4, (19, 14)), (4, 2, (9, 10)), (3, 1, (5, 4))]
)
def test_a_strided_convolution(form, size: int, stride: int, shape: tuple[int, int]):
    as_written = partial(convolved, stride=stride, padding="VALID")
    agree(as_written, partial(form, stride=stride), normal(1, 2, *shape, 3), weights(size, 3, 5))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(3, 1, (6, 7)), (3, 2, (9, 8)), (4, 3, (11, 13)), (5, 4, (6, 5)), (1, 2, (4, 5))]
)
def test_a_convolution_of_cpus(padding: str, size: int, stride: int, shape: tuple[int, int]):
    options = {"stride": stride, "padding": padding}
    image, ours = normal(1, 2, *shape, 3), weights(size, 3, 5)
    agree(partial(convolved, **options), partial(convolved_on_cpu, **options), image, ours)


def test_gradients_on_a_cpu_are_handed_to_a_library_within_loops_too():
    """The order of axes in which XLA's CPU backend hands a convolution on, and no other, is in the program."""

    def loss(ours: Weights, images: jax.Array) -> jax.Array:
        def one(summed: jax.Array, image: jax.Array) -> tuple[jax.Array, None]:
            return summed + jnp.sum(jnp.tanh(convolved_on_cpu(image, ours, stride=2))), None

        return jax.lax.scan(one, jnp.float32(0.0), images)[0]

    program = jax.jit(jax.grad(loss)).lower(weights(3, 3, 5), normal(1, 4, 2, 8, 8, 3)).as_text()
    orders = {
        line.split("dim_numbers = ")[1].split(", window")[0] for line in program.splitlines() if "dim_numbers" in line
    }
    assert orders == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_a_padded_convolution_in_blocks():
    def otherwise(image, ours):
        return out_of_pairs(convolved(in_blocks(image, 2), of_pairs(ours)))

    agree(convolved, otherwise, normal(1, 2, 6, 8, 3), weights(3, 3, 5))


def test_pooling_of_blocks():
    agree(pooled, lambda image: pooled_pairs(in_blocks(image, 2)), normal(1, 2, 6, 8, 3))


def test_equal_pixels_share_the_gradient():
    blocks = jnp.zeros((1, 2, 2, 4))
    gradient = jax.grad(lambda blocks: pooled_pairs(blocks).sum())(blocks)
    assert float(gradient.sum()) == pytest.approx(4.0) and float(gradient.min()) >= 0


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        pytest.param((8, 12), (3, 4), id="blocks throughout"),
        pytest.param((10, 6), (16, 32), id="odd after a stack"),
        pytest.param((7, 8), (3,), id="odd at once"),
        pytest.param((8, 8), (17, 4), id="many channels"),
    ],
)
def test_the_residual_stacks_in_blocks(shape: tuple[int, int], channels: tuple[int, ...]):
    stacks, inputs = [], 2
    for number, outputs in enumerate(channels):
        own = [weights(3, inputs if i == 0 else outputs, outputs, 10 * number + 2 * i) for i in range(5)]
        own = [Weights(0.1 * kernel, bias) for kernel, bias in own]
        stacks.append(_Stack(own[0], ((own[1], own[2]), (own[3], own[4]))))
        inputs = outputs
    agree(_residual, _residual_in_blocks, normal(1, 2, *shape, 2), stacks)


def test_the_residual_torso_is_the_one_of_flax():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, image):
            for channels in (3, 4):
                image = nn.max_pool(nn.Conv(channels, (3, 3))(image), (3, 3), strides=(2, 2), padding="SAME")
                for _ in range(2):
                    inner = nn.Conv(channels, (3, 3))(nn.relu(image))
                    image = image + nn.Conv(channels, (3, 3))(nn.relu(inner))
            return nn.relu(nn.Dense(6)(nn.relu(image).reshape(len(image), -1)))

    image = normal(1, 2, 8, 12, 3)
    params = Plain().init(jax.random.key(0), image)
    found = ResidualTorso((3, 4), 6, jnp.dtype("float32"), nn.initializers.lecun_normal()).apply(params, image)
    np.testing.assert_allclose(found, Plain().apply(params, image), rtol=1e-5, atol=1e-6)


def test_only_accelerators_compute_in_blocks():
    """The kernel of a block is twice as large in both directions of channels: it tells which form was taken."""
    torso = ResidualTorso((3,), 6, jnp.dtype("float32"), nn.initializers.lecun_normal())
    image = normal(1, 2, 8, 12, 3)
    params = torso.init(jax.random.key(0), image)
    for platform, in_form in (("cpu", False), ("cuda", True)):
        module = jax.export.export(jax.jit(torso.apply), platforms=[platform])(params, image).mlir_module()
        assert ("3x3x12x12xf32" in module) is in_form
