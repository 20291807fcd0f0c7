"""What the rows of unrolls say of the transitions between them, for every algorithm alike.

A step is valid unless the row after it is first: then it is no transition, and neither its reward nor its action has
any influence on anything. A truncated episode bootstraps from its final row, a terminated one from nothing.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from aioseed.types import FIRST, TERMINATED


class RewardOptions(Protocol):
    """Name the options of an agent that say which reward it learns from."""

    @property
    def reward_scale(self) -> float:
        """Return what rewards are multiplied by first."""

    @property
    def max_abs_reward(self) -> float:
        """Return the bound to which they are clipped then; 0 for none."""


class ReturnOptions(RewardOptions, Protocol):
    """Name the options of an agent that say what it is to maximise."""

    @property
    def discount(self) -> float:
        """Return gamma, for one transition."""


class Transitions(NamedTuple):
    """Hold what the rows of unrolls say of the transitions between them."""

    rewards: jax.Array  # float32[T, B], scaled and clipped
    discounts: jax.Array  # float32[T, B], 0 where nothing that follows is worth anything
    valid: jax.Array  # bool[T, B]


def scaled_reward(options: RewardOptions, reward: jax.Array) -> jax.Array:
    """Return the reward that is learned from: scaled first, then clipped."""
    scaled = reward.astype(jnp.float32) * options.reward_scale
    bound = options.max_abs_reward
    return jnp.clip(scaled, -bound, bound) if bound > 0 else scaled


def transitions(options: ReturnOptions, reward: jax.Array, flags: jax.Array) -> Transitions:
    """Return the T transitions between T+1 rows, of raw rewards [T+1, B] and flags [T+1, B]."""
    after = flags[1:]
    return Transitions(
        scaled_reward(options, reward[1:]),
        jnp.where((after & TERMINATED) != 0, 0.0, jnp.full(after.shape, options.discount, jnp.float32)),
        (after & FIRST) == 0,
    )
