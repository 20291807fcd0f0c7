"""Build the optimiser that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from aioseed.errors import ConfigError
from aioseed.training.config import OptimizerConfig, TrainingConfig

MOST_UPDATES = 2**31 - 1
"""What a schedule that ends later is taken to end at: steps are counted in int32."""


class Optimizer(NamedTuple):
    """Hold the optax transformation and, for the metrics, its schedule."""

    transformation: optax.GradientTransformation
    learning_rate: Callable[[jax.Array], jax.Array]  # int32[] optimiser steps made -> float32[]


def make_optimizer(
    config: TrainingConfig, unroll_steps: int, samples_per_insert: float | None = 1.0, first_unrolls: int = 0
) -> Optimizer:
    """Return the optimiser: clipping by global norm, then the named rule.

    The schedule counts optimiser steps that were applied. Where its length comes from `total_steps`, one optimiser step
    stands for ``batch_unrolls * unroll_steps / (samples_per_insert * passes)`` rows behind those of `first_unrolls`. A
    run ends by its transitions, which are the rows without the first of each episode, so that it makes somewhat more
    steps than the schedule has.

    Args:
        config: The section `training`.
        unroll_steps: Steps that an unroll adds to the one before it.
        samples_per_insert: How often each unroll is learned from; 1 where that is once, None where nobody knows.
        first_unrolls: Unrolls that only fill replay: nothing is owed for them.

    Raises:
        ConfigError: The learning rate falls, but until when nobody knows.
    """
    length = config.optimizer.schedule.updates
    if length is None and config.optimizer.schedule.kind != "constant" and samples_per_insert is None:
        raise ConfigError(
            "training.optimizer.schedule.updates is null: a schedule that falls needs it, or "
            "replay.samples_per_insert, to know its length",
            path="training.optimizer.schedule.updates",
            expected="a number of optimiser steps",
        )
    if length is None and config.total_steps is not None and samples_per_insert is not None:
        unrolls = config.total_steps / unroll_steps - first_unrolls
        length = max(1, int(unrolls * samples_per_insert * config.passes / config.batch_unrolls))
    schedule = _schedule(config.optimizer, min(length or 1, MOST_UPDATES))
    norm = config.optimizer.clip_norm
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    # A link that does nothing, where nothing is clipped: a checkpoint then fits whether or not it was.
    return Optimizer(optax.chain(clip, _rule(config.optimizer, schedule)), schedule)


def _schedule(config: OptimizerConfig, length: int) -> Callable[[jax.Array], jax.Array]:
    schedule = config.schedule
    if schedule.kind == "constant":
        constant: Callable[[jax.Array], jax.Array] = optax.constant_schedule(config.learning_rate)
        return constant
    power = schedule.power if schedule.kind == "polynomial" else 1.0

    def falling(steps: jax.Array) -> jax.Array:
        # Not by `optax.polynomial_schedule`: compiled, its last share is now and then a little below 0, and with it the
        # rate, or no number where the power is no whole one.
        left = jnp.maximum(1 - steps / length, 0.0)
        return (config.learning_rate - schedule.end_value) * left**power + schedule.end_value

    return falling


def _rule(config: OptimizerConfig, schedule: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformation:
    if config.name == "adam":
        return optax.adam(schedule, b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    momentum = config.momentum or None
    if config.name == "rmsprop":
        return optax.rmsprop(schedule, decay=config.decay, eps=config.epsilon, momentum=momentum)
    return optax.sgd(schedule, momentum=momentum)
