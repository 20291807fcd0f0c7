"""The product of a dense layer, with a gradient of the kernel that XLA computes fast on a CPU.

That gradient is ``features^T cotangents``, a product over all rows. As written, XLA's CPU backend packs the features by
columns, which takes as long as the product itself for 64 units, and ten times as long where a head has few outputs. The
same sum with the narrower side on the left costs what its multiplications cost; where that side is not narrow enough to
pack fast, it is turned round in a step of its own first. Figures: docs/adr/0030-gradients-of-dense-layers.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

DimensionNumbers: TypeAlias = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]
"""((axes of the left side, axes of the right side) summed over, the same of a batch)."""
Residuals: TypeAlias = tuple[jax.Array, jax.Array]

FEW_UNITS = 32
"""A side of fewer units is packed as fast as it is turned round."""
MANY_UNITS = 128
"""Where both sides have more, the multiplications take so long that their order no longer counts."""


def dense(
    units: int, *, kernel_init: nn.initializers.Initializer, use_bias: bool = True, name: str | None = None
) -> nn.Dense:
    """Return Flax's dense layer, with the same parameters, on `product`; to be called inside a compact method."""
    return nn.Dense(units, use_bias=use_bias, kernel_init=kernel_init, dot_general=_dot_general, name=name)


@jax.custom_vjp
def product(features: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return float[..., O], the features [..., I] times the kernel [I, O]."""
    return jnp.matmul(features, kernel)


def _forwards(features: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Residuals]:
    return product(features, kernel), (features, kernel)


def _backwards(residuals: Residuals, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    features, kernel = residuals
    rows, cotangents = features.reshape(-1, kernel.shape[0]), cotangent.reshape(-1, kernel.shape[1])
    gradient: jax.Array = jax.lax.platform_dependent(rows, cotangents, cpu=_narrow_first, default=_over_rows)
    return jnp.matmul(cotangent, kernel.T), gradient


product.defvjp(_forwards, _backwards)


def _over_rows(left: jax.Array, right: jax.Array) -> jax.Array:
    """Return [I, O], the sum over rows of what [N, I] and [N, O] give in pairs."""
    return jax.lax.dot_general(left, right, (((0,), (0,)), ((), ())))


def _narrow_first(left: jax.Array, right: jax.Array) -> jax.Array:
    """Return what `_over_rows` does, in the order that a CPU likes."""
    inputs, outputs = left.shape[1], right.shape[1]
    if min(inputs, outputs) > MANY_UNITS:
        return _over_rows(left, right)
    if outputs < inputs:
        return _as_it_is(_narrow_first(right, left)).T
    if inputs < FEW_UNITS:
        return _over_rows(left, right)
    return jnp.matmul(_as_it_is(left.T), right)


def _as_it_is(array: jax.Array) -> jax.Array:
    """Return `array` as an end of its own: otherwise XLA turns the product round to be rid of the transposition."""
    barrier: Callable[[jax.Array], jax.Array] = jax.lax.optimization_barrier
    return barrier(array)


def _dot_general(
    features: jax.Array,
    kernel: jax.Array,
    dimension_numbers: DimensionNumbers,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: jax.typing.DTypeLike | None = None,
) -> jax.Array:
    """Return what `jax.lax.dot_general` does, in the one case in which `flax.linen.Dense` calls it."""
    del dimension_numbers, precision, preferred_element_type  # the last axis with the first, and JAX's defaults
    return product(features, kernel)
