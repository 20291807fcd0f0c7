"""Which distribution an agent puts over the actions of an environment, and its options for real numbers."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.ops.distributions import ActionDistribution, categorical, multi_categorical
from aioseed.ops.normal import Squash, StdFunction, clipped_normal, tanh_normal
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
