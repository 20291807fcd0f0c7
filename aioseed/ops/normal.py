"""Normal distributions over a box: drawn on the whole line, then brought into the bounds by tanh or by clipping.

Both are affine images of a distribution on [-1, 1], and all densities are per unit there: log-probabilities and
entropies do not depend on the units in which an environment counts its actions, and a target entropy of minus one a
component means the same everywhere. `Sample.hidden` is the draw x before it was squashed, in those units. Whoever
stores it needs no atanh, which has no answer at the edges: in float32, tanh(x) is 1 from x = 9 on.

The parameters are D locations and then D raw scales, D being the elements of the action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr

from aioseed.errors import SpaceError
from aioseed.ops._check import check_last_axis
from aioseed.ops.distributions import ActionDistribution, Sample
from aioseed.specs import ActionSpec, ArraySpec

Squash: TypeAlias = Literal["tanh", "clip"]
StdFunction: TypeAlias = Literal["softplus", "exp"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_MAX_RAW = 15.0
_FAR = -10.0  # below, the asymptotic series of the Mills ratio is right to 1e-6
# The trapezoidal rule converges exponentially on the line (Trefethen and Weideman 2014). With 33 nodes the entropy is
# right to 1e-5 up to a standard deviation of 2 and to 1e-3 at 5; 32 Gauss-Hermite nodes miss by 0.03 there.
_NODES = np.linspace(-5.0, 5.0, 33)
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


class Normal(NamedTuple):
    """Hold the parameters of independent normal distributions."""

    loc: jax.Array  # float32[..., D]
    std: jax.Array  # float32[..., D], above 0


def tanh_normal(
    action: ActionSpec, *, std: StdFunction = "softplus", min_std: float = 1e-3, initial_std: float = 1.0
) -> ActionDistribution:
    """Return the distribution of tanh(x), x normal, stretched to the bounds of a box (Haarnoja et al. 2018, app. C).

    ``log_prob`` is exact, also where the action is rounded to a bound. ``entropy`` is the normal's own plus the mean of
    log(1 - tanh(x)^2), by quadrature: without noise, and differentiable. ``mode`` is the image of the location, which
    is the median: the density itself has two modes at the bounds where the normal is wide.

    Args:
        action: Of kind ``box``, every bound finite.
        std: How a raw scale becomes a standard deviation; exp is cut at raw scales of plus and minus 15, with the
            gradient going on as if it were not.
        min_std: Smallest standard deviation, above 0.
        initial_std: Standard deviation at a raw scale of 0, above `min_std`.

    Raises:
        SpaceError: The action is no box, or one without finite bounds or without room between them.
    """
    box = _box(action)
    normal = _reader(len(box.low), std, min_std, initial_std)

    def log_prob(params: jax.Array, sample: Sample) -> jax.Array:
        (drawn,) = sample.hidden
        return jnp.sum(_log_density(normal(params), drawn) - _log_slope(drawn), axis=-1)

    def entropy(params: jax.Array) -> jax.Array:
        base = normal(params)
        slopes = jax.vmap(lambda node: _log_slope(base.loc + base.std * node))(jnp.asarray(_NODES, jnp.float32))
        mean_slope = jnp.tensordot(jnp.asarray(_WEIGHTS, jnp.float32), slopes, axes=1)
        return jnp.sum(jnp.log(base.std) + (0.5 + _HALF_LOG_2PI) + mean_slope, axis=-1)

    return _distribution(box, normal, jnp.tanh, log_prob, entropy)


def clipped_normal(
    action: ActionSpec, *, std: StdFunction = "softplus", min_std: float = 1e-3, initial_std: float = 1.0
) -> ActionDistribution:
    """Return the distribution of x clipped to [-1, 1], x normal, stretched to the bounds of a box.

    It has a density inside and a probability at each bound, the mass of the tail beyond (Fujita and Maeda 2018).
    ``log_prob`` is the logarithm of the one or of the other, and ``entropy`` the mean of its negative, in closed form.
    It is not monotonic in the standard deviation: a very wide normal always takes one of two bounds.

    Args:
        action: As in `tanh_normal`.
        std: As in `tanh_normal`.
        min_std: As in `tanh_normal`.
        initial_std: As in `tanh_normal`.

    Raises:
        SpaceError: As in `tanh_normal`.
    """
    box = _box(action)
    normal = _reader(len(box.low), std, min_std, initial_std)

    def log_prob(params: jax.Array, sample: Sample) -> jax.Array:
        base, (drawn,) = normal(params), sample.hidden
        below, above = drawn <= -1, drawn >= 1
        inside = _log_density(base, jnp.where(below | above, base.loc, drawn))
        edge = jnp.where(below, -1 - base.loc, base.loc - 1) / base.std
        tail = log_tail(jnp.where(below | above, edge, 0.0))
        return jnp.sum(jnp.where(below | above, tail, inside), axis=-1)

    def entropy(params: jax.Array) -> jax.Array:
        return jnp.sum(_clipped_entropy(normal(params)), axis=-1)

    return _distribution(box, normal, lambda drawn: jnp.clip(drawn, -1.0, 1.0), log_prob, entropy)


@jax.custom_jvp
def log_tail(standard: jax.Array) -> jax.Array:
    """Return the logarithm of the standard normal's CDF, float32[...]; its gradient is right in the far tail too.

    That of `jax.scipy.special.log_ndtr` is the exponential of a difference of squares: in float32 it is off by 3% at
    -1,000 and may be infinite at -10,000.
    """
    tail: jax.Array = log_ndtr(standard)
    return tail


@log_tail.defjvp
def _log_tail_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (standard,), (tangent,) = primals, tangents
    tail = log_tail(standard)
    far = standard < _FAR
    near = jnp.where(far, 0.0, standard)
    ratio = jnp.exp(-0.5 * jnp.square(near) - _HALF_LOG_2PI - jnp.where(far, 0.0, tail))
    inverse = 1 / jnp.square(jnp.where(far, standard, _FAR))
    far_ratio = -standard / (1 - inverse * (1 - 3 * inverse * (1 - 5 * inverse)))
    return tail, jnp.where(far, far_ratio, ratio) * tangent


class _Box(NamedTuple):
    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]


def _box(action: ActionSpec) -> _Box:
    if action.kind != "box":
        raise SpaceError(f"a normal distribution needs a Box action, this one is {action.kind}")
    for i, (low, high) in enumerate(zip(action.low, action.high, strict=True)):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise SpaceError(
                f"element {i} of the Box action goes from {low} to {high}, and this agent needs finite bounds: give it "
                "some with a wrapper (environment.options.wrappers)"
            )
        if low == high:
            raise SpaceError(
                f"element {i} of the Box action can only be {low}: leave it out with a wrapper "
                "(environment.options.wrappers)"
            )
    return _Box(action.low, action.high, action.array.shape)


def _distribution(
    box: _Box,
    normal: Callable[[jax.Array], Normal],
    squash: Callable[[jax.Array], jax.Array],
    log_prob: Callable[[jax.Array, Sample], jax.Array],
    entropy: Callable[[jax.Array], jax.Array],
) -> ActionDistribution:
    size = len(box.low)

    def sample_of(drawn: jax.Array) -> Sample:
        return Sample(_stretched(box, squash(drawn)), (drawn,))

    def sample(params: jax.Array, uniforms: jax.Array) -> Sample:
        check_last_axis(size, uniforms=uniforms)
        base = normal(params)
        return sample_of(base.loc + base.std * _standard_normal(uniforms))

    def mode(params: jax.Array) -> Sample:
        return sample_of(normal(params).loc)

    def kl(params: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.sum(_kl(normal(params), normal(other)), axis=-1)

    hidden: tuple[ArraySpec, ...] = (ArraySpec("float32", (size,)),)
    return ActionDistribution(2 * size, size, hidden, sample, mode, log_prob, entropy, kl)


def _reader(size: int, function: StdFunction, min_std: float, initial_std: float) -> Callable[[jax.Array], Normal]:
    """Return the function from params [..., 2 * D] to a `Normal`."""
    above = initial_std - min_std

    def normal(params: jax.Array) -> Normal:
        check_last_axis(2 * size, params=params)
        loc, raw = jnp.split(params, 2, axis=-1)
        if function == "softplus":
            # The inverse of softplus at `above`.
            return Normal(loc, jax.nn.softplus(raw + (above + math.log(-math.expm1(-above)))) + min_std)
        held = jax.lax.stop_gradient(raw)
        bounded = jnp.clip(held, -_MAX_RAW, _MAX_RAW) + (raw - held)
        return Normal(loc, above * jnp.exp(bounded) + min_std)

    return normal


def _standard_normal(uniforms: jax.Array) -> jax.Array:
    """Return draws from the standard normal, by its inverse CDF, for uniforms in [0, 1); always finite.

    The uniforms of JAX are multiples of 2^-23. Their midpoints are symmetric about 1/2 and are neither 0 nor 1: the
    farthest draws are at 5.3 standard deviations.
    """
    middle = jnp.clip(uniforms + 2.0**-24, 2.0**-24, 1 - 2.0**-24)
    return math.sqrt(2) * jax.lax.erf_inv(2 * middle - 1)


def _stretched(box: _Box, squashed: jax.Array) -> jax.Array:
    """Return actions [..., *action shape] for numbers [..., D] in [-1, 1]."""

    def row(values: list[float]) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(values, jnp.float32), squashed.shape)

    pairs = list(zip(box.low, box.high, strict=True))
    center, half = row([low / 2 + high / 2 for low, high in pairs]), row([high / 2 - low / 2 for low, high in pairs])
    # Rounding may lead a little out of the bounds.
    action = jnp.clip(center + half * squashed, row(list(box.low)), row(list(box.high)))
    return action.reshape(*squashed.shape[:-1], *box.shape)


def _log_density(base: Normal, drawn: jax.Array) -> jax.Array:
    return -0.5 * jnp.square((drawn - base.loc) / base.std) - jnp.log(base.std) - _HALF_LOG_2PI


def _log_slope(drawn: jax.Array) -> jax.Array:
    """Return log(1 - tanh(x)^2) without taking the difference, which is 0 from x = 9 on."""
    size = jnp.abs(drawn)
    return 2 * (math.log(2) - size - jnp.log1p(jnp.exp(-2 * size)))


def _clipped_entropy(base: Normal) -> jax.Array:
    """Return float32[..., D]: -P log P of both tails, and the integral of -p log p between them."""
    low, high = (-1 - base.loc) / base.std, (1 - base.loc) / base.std
    low_log, high_log = log_tail(low), log_tail(-high)
    # Of the two ways to write the mass between the bounds, the one that does not take it from 1.
    inside = jnp.where(base.loc > 0, ndtr(high) - ndtr(low), ndtr(-low) - ndtr(-high))
    spread = 0.5 * (inside - high * _bell(high) + low * _bell(low))
    between = inside * (jnp.log(base.std) + _HALF_LOG_2PI) + spread
    return between - jnp.exp(low_log) * low_log - jnp.exp(high_log) * high_log


def _bell(standard: jax.Array) -> jax.Array:
    return jnp.exp(-0.5 * jnp.square(standard) - _HALF_LOG_2PI)


def _kl(base: Normal, other: Normal) -> jax.Array:
    """Return float32[..., D], KL(base | other) of the normals; that of their images is equal (tanh) or less (clip)."""
    ratio = base.std / other.std
    apart = (base.loc - other.loc) / other.std
    return 0.5 * (jnp.square(ratio) + jnp.square(apart) - 1) - jnp.log(ratio)
