"""Convolutions in three forms that give the same numbers, since no platform computes all of them well as written.

**In blocks**, for accelerators: matrix units want 32 channels and more; a stack of four grey frames has 4, and the
first layers of published networks 16. The pixels of a square of neighbours lie beside each other as channels: a quarter
of the places, four times the channels, and a kernel that has zeros where a pixel of one block does not see one of
another. The additional products with zeros cost less than idle units do.

**With gradients by hand**, for CPUs: XLA's backend there hands a convolution to a library only where its axes stand in
the library's order. It puts the others in order first, but not within loops: there gradients of convolutions, whose
axes JAX permutes, take thirty times as long. So they are written in that order here.

What is learned has the shapes of the form as written, whichever is computed. Figures: docs/topics/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer: TypeAlias = Callable[..., jax.Array]
"""(key, shape, dtype) -> kernel."""
NARROW_CHANNELS = 16
"""Up to so many channels a convolution is computed in blocks."""


class Weights(NamedTuple):
    """Hold what a convolution learns."""

    kernel: jax.Array  # [k, k, C, O]
    bias: jax.Array  # [O]


class Convolution(nn.Module):
    """Own the weights of a convolution, named and begun as `flax.linen.Conv` does it; others compute."""

    channels: int
    size: int
    kernel_init: Initializer

    @nn.compact
    def __call__(self, inputs: int) -> Weights:
        """Return the weights for images of `inputs` channels, float32."""
        shape = (self.size, self.size, inputs, self.channels)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return Weights(kernel, self.param("bias", nn.initializers.zeros_init(), (self.channels,), jnp.float32))


def convolved(image: jax.Array, weights: Weights, *, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Return the convolution of [N, H, W, C] as written, in the dtype of `image`."""
    kernel, bias = (leaf.astype(image.dtype) for leaf in weights)
    form = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(image, kernel, (stride, stride), padding, dimension_numbers=form)
    return found + bias[None, None, None]


def convolved_on_cpu(image: jax.Array, weights: Weights, *, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Return what `convolved` does, with gradients that a CPU computes as fast as the convolution itself."""
    kernel, bias = (leaf.astype(image.dtype) for leaf in weights)
    around = jax.lax.padtype_to_pads(image.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    return _correlated(image, kernel, stride, tuple(around)) + bias[None, None, None]


Pads: TypeAlias = Sequence[tuple[int, int]]
"""Places before and behind the image, for each of its two axes."""


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlated(image: jax.Array, kernel: jax.Array, stride: int, around: Pads) -> jax.Array:
    return _in_order(image, kernel, around, stride=stride)


def _in_order(
    image: jax.Array, kernel: jax.Array, around: Pads, *, stride: int = 1, apart: int = 1, spread: int = 1
) -> jax.Array:
    """Return the convolution of [N, H, W, C] with [k, k, C, O] in the order of axes that is handed on.

    Args:
        image: Its pixels are taken `apart` from each other.
        kernel: Its places are `spread`.
        around: How the image is padded.
        stride: From one window to the next.
    """
    return jax.lax.conv_general_dilated(
        image, kernel, (stride, stride), around, (apart, apart), (spread, spread), ("NHWC", "HWIO", "NHWC")
    )


def _correlated_and_kept(
    image: jax.Array, kernel: jax.Array, stride: int, around: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _correlated(image, kernel, stride, around), (image, kernel)


def _correlated_back(
    stride: int, around: Pads, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of image and kernel.

    That of the image is a convolution of the output's with the kernel turned round. That of the kernel is one of the
    image with the output's as a kernel: images are summed over as channels are else, and channels stand for images.
    """
    image, kernel = kept
    pads, reached, beyond = [], [], []
    for side, size, windows, (low, _) in zip(
        image.shape[1:3], kernel.shape[:2], gradient.shape[1:3], around, strict=True
    ):
        last = (windows - 1) * stride - low  # the first pixel of the last window
        over = last + size - side  # pixels of it that are padding; below 0, as many that no window sees
        pads.append((size - 1 - low, side - 1 - last))
        reached.append(side + min(0, over))
        beyond.append((low, max(0, over)))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    image_gradient = _in_order(gradient, turned, pads, apart=stride)
    seen = image[:, : reached[0], : reached[1]].transpose(3, 1, 2, 0)
    kernel_gradient = _in_order(seen, gradient.transpose(1, 2, 0, 3), beyond, spread=stride)
    return image_gradient, kernel_gradient.transpose(1, 2, 0, 3)


_correlated.defvjp(_correlated_and_kept, _correlated_back)


def strided_in_blocks(image: jax.Array, weights: Weights, *, stride: int) -> jax.Array:
    """Return the convolution without padding of an `image` whose kernel is a multiple of `stride`, in blocks.

    With blocks as large as the stride it is a dense one of kernel k / stride.
    """
    blocks, kernel = _dense(image, weights.kernel, stride)
    return convolved(blocks, Weights(kernel, weights.bias), padding="VALID")


def _dense(image: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Return image and kernel in blocks as large as the stride."""
    size, _, channels, outputs = kernel.shape
    height, width = ((side - size) // stride * stride + size for side in image.shape[1:3])  # what the kernel reaches
    cut = kernel.reshape(size // stride, stride, size // stride, stride, channels, outputs)
    dense = cut.transpose(0, 2, 1, 3, 4, 5).reshape(size // stride, size // stride, -1, outputs)
    return in_blocks(image[:, :height, :width], stride), dense


def of_pairs(weights: Weights) -> Weights:
    """Return the weights of the convolution of blocks of 2 by 2 that is the one of 3 by 3 with padding on pixels."""
    # A pixel of place a in its block sees fine places a - 1 to a + 1; from the block before to the one behind there are
    # six, from -2 to 3.
    each = [
        jnp.pad(weights.kernel, ((a + 1, 2 - a), (b + 1, 2 - b), (0, 0), (0, 0))) for a in range(2) for b in range(2)
    ]
    channels, outputs = weights.kernel.shape[2:]
    kernel = jnp.stack(each, axis=-2).reshape(3, 2, 3, 2, channels, 4 * outputs)
    return Weights(kernel.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, 4 * channels, -1), jnp.tile(weights.bias, 4))


def in_blocks(image: jax.Array, side: int) -> jax.Array:
    """Return [N, H, W, C] as blocks [N, H / side, W / side, side * side * C]; `side` must divide H and W."""
    n, height, width, channels = image.shape
    cut = image.reshape(n, height // side, side, width // side, side, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // side, width // side, side * side * channels)


def out_of_pairs(blocks: jax.Array) -> jax.Array:
    """Return blocks of 2 by 2 as the image that they are of: undoes ``in_blocks(image, 2)``."""
    n, height, width, channels = blocks.shape
    cut = blocks.reshape(n, height, width, 2, 2, channels // 4)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, channels // 4)


def pooled(image: jax.Array) -> jax.Array:
    """Return the maxima over windows of 3 by 3, two pixels apart, of [N, H, W, C], padded: [N, ceil(H/2), ...]."""
    result: jax.Array = nn.max_pool(image, (3, 3), strides=(2, 2), padding="SAME")  # type: ignore[no-untyped-call]
    return result


def pooled_pairs(blocks: jax.Array) -> jax.Array:
    """Return `pooled` of the image that blocks of 2 by 2 are of: [N, H, W, 4 * C] -> [N, H, W, C].

    A window is a block, the first row of the block below, and the first column of the one to the right. Where several
    pixels are the highest, they share the gradient, of which `pooled` gives all to the first.
    """
    n, height, width, channels = blocks.shape
    pairs = blocks.reshape(n, height, width, 2, 2, channels // 4)
    rows = jnp.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1])
    below = jnp.pad(pairs[:, 1:, :, 0], ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)), constant_values=-jnp.inf)
    rows = jnp.maximum(rows, below)
    columns = jnp.maximum(rows[..., 0, :], rows[..., 1, :])
    right = jnp.pad(rows[:, :, 1:, 0], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=-jnp.inf)
    return jnp.maximum(columns, right)


def is_even(image: jax.Array) -> bool:
    """Say whether an image [N, H, W, C] can be cut into blocks of 2 by 2."""
    return image.shape[1] % 2 == 0 and image.shape[2] % 2 == 0
