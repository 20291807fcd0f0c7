"""The weight of the entropy as something learned: exp(speed x parameter), positive whatever the optimiser does."""

from __future__ import annotations

import math
from typing import Protocol

import jax
import jax.numpy as jnp

_MAX_LOG_COST = 20.0


class CostOptions(Protocol):
    """Name the options of an agent that say where the entropy's weight starts and how fast it moves."""

    @property
    def entropy_cost(self) -> float:
        """Return the weight at the start, above 0."""

    @property
    def entropy_cost_adjustment_speed(self) -> float:
        """Return the speed."""


def initial_parameter(options: CostOptions) -> jax.Array:
    """Return float32[], the parameter at the start: the logarithm of the cost over the speed."""
    return jnp.asarray(math.log(options.entropy_cost) / options.entropy_cost_adjustment_speed, jnp.float32)


def cost_of(options: CostOptions, parameter: jax.Array) -> jax.Array:
    """Return float32[], the weight of the entropy."""
    cost: jax.Array = jnp.exp(options.entropy_cost_adjustment_speed * parameter)
    return cost


def bounded_parameter(options: CostOptions, parameter: jax.Array) -> jax.Array:
    """Return the parameter with the logarithm of the cost within 20.

    Beyond, the gradient of the parameter is rounded to 0 or overflows.
    """
    bound = _MAX_LOG_COST / options.entropy_cost_adjustment_speed
    return jnp.clip(parameter, -bound, bound)
