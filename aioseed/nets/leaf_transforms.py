"""Transforms of single observations: bits to pixels, integers to numbers, and a running normaliser."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.nets.network import PyTree
from aioseed.nets.transforms import Observation, Transform, stateless, transform_leaves
from aioseed.specs import ArraySpec, ObservationSpec


def unpack_bits(observation: ObservationSpec, *, size: int, only: tuple[str, ...] = ()) -> Transform:
    """Make a uint8 of each bit, 0 or 255: undoes ``numpy.packbits(planes, axis=-1)``.

    Args:
        observation: Leaves of uint8 whose last axis has ``ceil(size / 8)`` bytes; the highest bit comes first.
        size: Length of the last axis before it was packed.
        only: Leaves to unpack, by their dotted paths; empty for all.

    Raises:
        ValueError: A leaf is not such an array.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a positive integer, not {size!r}")

    def make(leaf: ArraySpec) -> Transform:
        needed = -(-size // 8)
        if leaf.dtype != "uint8" or not leaf.shape or leaf.shape[-1] != needed:
            raise ValueError(f"{size} bits are {needed} bytes of uint8, not {leaf.dtype} of shape {leaf.shape}")

        def apply(packed: Observation) -> Observation:
            bits = jnp.unpackbits(cast("jax.Array", packed), axis=-1, count=size)
            pixels: jax.Array = bits * jnp.uint8(255)
            return pixels

        return stateless(ArraySpec("uint8", (*leaf.shape[:-1], size)), apply)

    return transform_leaves(observation, only, make)


def scale(observation: ObservationSpec, *, factor: float = 1 / 255, only: tuple[str, ...] = ()) -> Transform:
    """Make float32 of any numbers and multiply them by a factor.

    Args:
        observation: Leaves of any dtype.
        factor: What to multiply by; 1/255 brings pixels into [0, 1].
        only: Leaves to scale, by their dotted paths; empty for all.

    Raises:
        ValueError: The factor is not finite or 0.
    """
    if not math.isfinite(factor) or factor == 0:
        raise ValueError(f"factor must be a finite number that is not 0, not {factor!r}")

    def make(leaf: ArraySpec) -> Transform:
        def apply(numbers: Observation) -> Observation:
            scaled: jax.Array = cast("jax.Array", numbers).astype(jnp.float32) * jnp.float32(factor)
            return scaled

        return stateless(ArraySpec("float32", leaf.shape), apply)

    return transform_leaves(observation, only, make)


MOST_SPREADS = 100.0
MOST = 1e15
"""The squares of some ten million such numbers still add up in float32."""


class Moments(NamedTuple):
    """Hold what a normaliser knows of one leaf."""

    rows: jax.Array  # float32[], how many were seen
    mean: jax.Array  # float32[*shape]
    variance: jax.Array  # float32[*shape], of the population


def normalize(
    observation: ObservationSpec, *, epsilon: float = 1e-3, clip: float = 5.0, only: tuple[str, ...] = ()
) -> Transform:
    """Bring every number to mean 0 and deviation 1 by the statistics of all rows so far, element by element.

    ``clip((x - mean) / (deviation + epsilon))``, as SEED RL's normaliser. The statistics are training state: rows of a
    batch count once its optimiser step is made, and rows of a step that was skipped never do. Before the first step
    numbers pass as they are, but for the bound.

    Args:
        observation: Leaves of any dtype.
        epsilon: Added to the deviation, above 0.
        clip: Bound of the result, above 0.
        only: Leaves to normalise, by their dotted paths; empty for all.

    Raises:
        ValueError: An option is not one of those above.
    """
    for name, value in (("epsilon", epsilon), ("clip", clip)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    return transform_leaves(observation, only, partial(_normalize, epsilon, clip))


def _normalize(epsilon: float, clip: float, leaf: ArraySpec) -> Transform:
    def init() -> PyTree:
        zeros, ones = np.zeros(leaf.shape, np.float32), np.ones(leaf.shape, np.float32)
        return Moments(jnp.float32(0), jnp.asarray(zeros), jnp.asarray(ones))

    def apply(params: PyTree, state: PyTree, observation: Observation, first: jax.Array) -> tuple[Observation, PyTree]:
        numbers = cast("jax.Array", observation).astype(jnp.float32)
        leading = (1,) * (numbers.ndim - len(leaf.shape))
        mean, deviation = params.mean, jnp.sqrt(params.variance) + jnp.float32(epsilon)
        centred = (numbers - mean.reshape(leading + leaf.shape)) / deviation.reshape(leading + leaf.shape)
        return jnp.clip(centred, -clip, clip), state

    def observe(params: PyTree, state: PyTree, observation: Observation, first: jax.Array, fresh: jax.Array) -> PyTree:
        numbers = cast("jax.Array", observation).astype(jnp.float32)
        # Pixels are never wild, and there are many of them.
        return with_rows(params, numbers if leaf.dtype == "uint8" else tame(params, numbers, fresh), fresh)

    return Transform(ArraySpec("float32", leaf.shape), init, lambda: (), apply, apply, observe)


def with_rows(moments: Moments, numbers: jax.Array, fresh: jax.Array) -> Moments:
    """Return the moments of the rows before and these together (Chan, Golub and LeVeque 1983, equation 2.1).

    Mean and variance are kept instead of sums, which would outgrow float32. Both move by a share of what they differ:
    after billions of rows that rounds to nothing, where a product with 1 - share would shrink them at every step.

    Args:
        moments: Of the rows before.
        numbers: float32[T+1, B, *shape].
        fresh: bool[T+1, B]; the other rows do not count.
    """
    weight = _weight(numbers, fresh)
    added = jnp.sum(fresh, dtype=jnp.float32)
    divisor = jnp.maximum(added, 1.0)
    mean = jnp.sum(numbers * weight, axis=(0, 1)) / divisor
    variance = jnp.sum(jnp.square(numbers - mean[None, None]) * weight, axis=(0, 1)) / divisor
    total = jnp.maximum(moments.rows + added, 1.0)
    share = added / total
    apart = mean - moments.mean
    before = jnp.where(share < 1, moments.variance, variance)  # exact where these are the first rows
    return Moments(
        moments.rows + added,
        moments.mean + share * apart,
        before + share * (variance - before + (1 - share) * jnp.square(apart)),
    )


def tame(moments: Moments, numbers: jax.Array, fresh: jax.Array) -> jax.Array:
    """Return the numbers, at most `MOST`, and at most 100 times the deviation and their usual distance from the mean.

    One wild row (the largest float32 as a mark for "nothing there") would else make the numbers of all others 0 for
    ever. What is usual is a geometric mean over these rows, on which a wild one has hardly a say: so the first batch is
    tamed too, and rows that are all of another scale than those before count as they are.

    Args:
        moments: Of the rows before.
        numbers: float32[T+1, B, *shape].
        fresh: bool[T+1, B]; the other rows have no say.
    """
    numbers, mean = jnp.clip(numbers, -MOST, MOST), moments.mean[None, None]
    logarithms = jnp.sum(jnp.log1p(jnp.abs(numbers - mean)) * _weight(numbers, fresh), axis=(0, 1))
    usual = jnp.exp(logarithms / jnp.maximum(jnp.sum(fresh, dtype=jnp.float32), 1.0))
    away = MOST_SPREADS * (jnp.sqrt(moments.variance) + usual)[None, None]
    return jnp.clip(numbers, mean - away, mean + away)


def _weight(numbers: jax.Array, fresh: jax.Array) -> jax.Array:
    return fresh.astype(jnp.float32).reshape(fresh.shape + (1,) * (numbers.ndim - fresh.ndim))
