"""Parametric action distributions: pure functions from a network's numbers to actions, log-probabilities and entropies.

All functions work on the trailing axes and take any leading ones, written ``[...]``. Noise comes from the caller as
uniforms, so that it can be keyed by the step (see `aioseed.ops.rng`). The discrete kinds are here. Distributions over
real numbers (`aioseed.ops.normal`) have the same form: their `Sample.hidden` holds what a log-probability needs beyond
the action (the draw before squashing), which agents store with the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind, check_last_axis
from aioseed.specs import ArraySpec

Hidden: TypeAlias = "tuple[jax.Array, ...]"


class Sample(NamedTuple):
    """Hold an action and what its log-probability needs besides."""

    action: jax.Array  # [..., *action shape], in the dtype of the ActionSpec
    hidden: Hidden = ()  # leaves [..., *shape]; empty for the discrete kinds, whose actions say everything


class ActionDistribution(NamedTuple):
    """Bundle the functions of one family of distributions."""

    parameter_size: int
    """Numbers P that a network puts out for each row."""
    uniforms_per_action: int
    """Uniforms U that one sample needs."""
    hidden: tuple[ArraySpec, ...]
    """Specs of `Sample.hidden`, one row."""
    sample: Callable[[jax.Array, jax.Array], Sample]
    """(params [..., P], uniforms [..., U] in [0, 1)) -> Sample."""
    mode: Callable[[jax.Array], Sample]
    """params [..., P] -> the most likely Sample, the lowest action among equals; of normals, their median."""
    log_prob: Callable[[jax.Array, Sample], jax.Array]
    """(params [..., P], Sample) -> float32[...]."""
    entropy: Callable[[jax.Array], jax.Array]
    """params [..., P] -> float32[...], in nats."""
    kl: Callable[[jax.Array, jax.Array], jax.Array]
    """(params [..., P], other params [..., P]) -> float32[...], KL(params | other) in nats."""


def categorical(choices: int) -> ActionDistribution:
    """Return the distribution of one integer in ``[0, choices)``, its parameters being logits.

    Sampling is by inverse CDF from one uniform. Logits may be -inf: such an action is never taken and adds nothing to
    the entropy.
    """

    def sample(params: jax.Array, uniforms: jax.Array) -> Sample:
        check_last_axis(choices, params=params)
        check_last_axis(1, uniforms=uniforms)
        return Sample(_inverse_cdf(params, uniforms))

    def mode(params: jax.Array) -> Sample:
        check_last_axis(choices, params=params)
        return Sample(jnp.argmax(params, axis=-1).astype(jnp.int32))

    def log_prob(params: jax.Array, sample: Sample) -> jax.Array:
        check_last_axis(choices, params=params)
        check_kind(jnp.integer, action=sample.action)
        # Not a gather: its gradient is a scatter, which is slow on CPUs.
        taken = jax.nn.one_hot(sample.action, choices, dtype=jnp.bool_)
        return jnp.sum(jnp.where(taken, jax.nn.log_softmax(params), 0.0), axis=-1)

    def entropy(params: jax.Array) -> jax.Array:
        check_last_axis(choices, params=params)
        log_probs = jax.nn.log_softmax(params)
        finite = jnp.where(jnp.isneginf(log_probs), 0.0, log_probs)
        return -jnp.sum(jnp.exp(log_probs) * finite, axis=-1)

    def kl(params: jax.Array, other: jax.Array) -> jax.Array:
        check_last_axis(choices, params=params, other=other)
        ours, theirs = jax.nn.log_softmax(params), jax.nn.log_softmax(other)
        impossible = jnp.isneginf(ours)
        difference = jnp.where(impossible, 0.0, ours) - jnp.where(impossible, 0.0, theirs)
        return jnp.sum(jnp.exp(ours) * difference, axis=-1)

    return ActionDistribution(choices, 1, (), sample, mode, log_prob, entropy, kl)


def multi_categorical(sizes: tuple[int, ...]) -> ActionDistribution:
    """Return the distribution of independent integers, component i in ``[0, sizes[i])``.

    The parameters are the components' logits one after the other, ``sum(sizes)`` numbers; sizes need not be equal.
    """
    parts = [categorical(size) for size in sizes]
    cuts = [sum(sizes[:i]) for i in range(1, len(sizes))]

    def split(params: jax.Array) -> list[jax.Array]:
        check_last_axis(sum(sizes), params=params)
        return jnp.split(params, cuts, axis=-1)

    def sample(params: jax.Array, uniforms: jax.Array) -> Sample:
        check_last_axis(len(sizes), uniforms=uniforms)
        pairs = zip(split(params), jnp.split(uniforms, len(sizes), axis=-1), strict=True)
        return Sample(jnp.stack([part.sample(*pair).action for part, pair in zip(parts, pairs, strict=True)], axis=-1))

    def mode(params: jax.Array) -> Sample:
        pairs = zip(parts, split(params), strict=True)
        return Sample(jnp.stack([part.mode(logits).action for part, logits in pairs], axis=-1))

    def log_prob(params: jax.Array, sample: Sample) -> jax.Array:
        check_last_axis(len(sizes), action=sample.action)
        components = [Sample(sample.action[..., i]) for i in range(len(sizes))]
        triples = zip(parts, split(params), components, strict=True)
        return _total([part.log_prob(logits, component) for part, logits, component in triples])

    def entropy(params: jax.Array) -> jax.Array:
        return _total([part.entropy(logits) for part, logits in zip(parts, split(params), strict=True)])

    def kl(params: jax.Array, other: jax.Array) -> jax.Array:
        pairs = zip(parts, split(params), split(other), strict=True)
        return _total([part.kl(logits, other_logits) for part, logits, other_logits in pairs])

    return ActionDistribution(sum(sizes), len(sizes), (), sample, mode, log_prob, entropy, kl)


def _total(terms: Sequence[jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack(terms), axis=0)


def _inverse_cdf(logits: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Return int32[...], the action whose stretch of the cumulated probabilities holds the uniform."""
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    # Of hundreds of weights XLA adds up parts first: a sum may then rise by a rounding where the weight is 0, or fall.
    cumulated = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
    # The product stays below the total for every float32 below 1: there always is an action with weight beyond it.
    beyond = cumulated > uniforms * jnp.max(cumulated, axis=-1, keepdims=True)
    numbers = jax.lax.broadcasted_iota(jnp.int32, beyond.shape, beyond.ndim - 1)
    return jnp.min(jnp.where(beyond, numbers, logits.shape[-1] - 1), axis=-1)
