"""Which distribution an agent puts over the actions of an environment, and its options for real numbers."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.agents.agent import ActInput
from aioseed.ops.distributions import ActionDistribution, Sample, categorical, multi_categorical
from aioseed.ops.normal import Squash, StdFunction, clipped_normal, tanh_normal
from aioseed.ops.rng import slot_uniforms
from aioseed.specs import ActionSpec

_SQUASHED = {"tanh": tanh_normal, "clip": clipped_normal}


class ActionConfig(BaseModel):
    """Configure the normal distribution over Box actions. Its units are those of actions rescaled to [-1, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    squash: Squash = Field(default="tanh", description="what brings draws into the bounds: tanh or clip")
    std: StdFunction = Field(default="softplus", description="makes a standard deviation of the network's number")
    min_std: float = Field(default=1e-3, gt=0, description="smallest standard deviation")
    initial_std: float = Field(default=1.0, gt=0, description="standard deviation where the network's number is 0")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.initial_std <= self.min_std:
            raise ValueError(f"initial_std must be above min_std, which is {self.min_std}")
        return self


def action_distribution(action: ActionSpec, config: ActionConfig) -> ActionDistribution:
    """Return the distribution over the actions of a spec; `config` has a say only where they are real numbers.

    Raises:
        SpaceError: A box has an infinite bound or one without room between its bounds.
    """
    if action.kind == "discrete":
        return categorical(action.sizes[0])
    if action.kind == "multi_discrete":
        return multi_categorical(action.sizes)
    make = _SQUASHED[config.squash]
    return make(action, std=config.std, min_std=config.min_std, initial_std=config.initial_std)


def choose_actions(
    distribution: ActionDistribution, policy: jax.Array, key: jax.Array, rows: ActInput, greedy: bool
) -> Sample:
    """Draw an action for each row with the noise of its step, or take the mode: everywhere or where the row says so.

    Args:
        distribution: What the policy's numbers mean.
        policy: float32[B, P], the numbers.
        key: As `ActFunction` gets it, like the last two.
        rows: The batch.
        greedy: Static. True takes the mode of every row.
    """
    mode = distribution.mode(policy)
    if greedy:
        return mode
    uniforms = slot_uniforms(key, rows.slot, rows.epoch_low, rows.sequence, distribution.uniforms_per_action)
    drawn = distribution.sample(policy, uniforms)

    def chosen(likely: jax.Array, drawn: jax.Array) -> jax.Array:
        return jnp.where(rows.takes_mode.reshape((-1,) + (1,) * (drawn.ndim - 1)), likely, drawn)

    # After the draw, so that the other rows keep theirs to the bit.
    sample: Sample = jax.tree.map(chosen, mode, drawn)
    return sample
