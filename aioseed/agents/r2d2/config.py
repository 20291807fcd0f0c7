"""Options of the R2D2 agent: SEED RL's for the same agent, with its defaults."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count32 = Annotated[int, Field(ge=1, le=2**31 - 1)]  # what is counted in int32


class ExplorationConfig(BaseModel):
    """Say how often an environment acts at random: slot k with probability ``base ** exponent(k)``.

    By default ``exponent(k) = first + (last - first) u``, u being the base-2 van der Corput sequence at k (0, 1/2, 1/4,
    3/4, 1/8 ...): the lowest slots cover the range whatever their number, and nobody's changes when others come.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base: Share = Field(default=0.4, description="what is raised to the power of the exponent")
    first_exponent: float = Field(default=1.0, ge=0, description="of slot 0")
    last_exponent: float = Field(default=8.0, ge=0, description="where the ladder ends")
    ladder_size: Count32 | None = Field(
        default=None,
        description="SEED RL's ladder for so many environments: exponents evenly from first to last; null: one for any "
        "number, on which nobody's place changes when others come",
    )
    evaluation_epsilon: Share = Field(default=1e-3, description="of environments in the role evaluate")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.last_exponent < self.first_exponent:
            raise ValueError("last_exponent must not be below first_exponent")
        return self


class R2d2Config(BaseModel):
    """Configure R2D2. The loss is summed over the valid steps of an unroll and averaged over unrolls, as in SEED RL."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    discount: float = Field(default=0.997, ge=0, le=1, description="gamma, for one transition")
    n_steps: int = Field(
        default=5, ge=1, description="rewards that a target sums up before it bootstraps; fewer at the end of an unroll"
    )
    burn_in_steps: int = Field(
        default=40, ge=0, description="rows before those learned from that only bring the recurrent state up to date"
    )
    rescaling_epsilon: float = Field(default=1e-3, gt=0, description="epsilon of the value rescaling h")
    target_update_every: Count32 = Field(
        default=2500, description="optimiser steps between two updates of the target network"
    )
    target_update_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the online network that an update takes over; 1 is a hard copy"
    )
    priority_max_share: Share = Field(default=0.9, description="eta of the priority eta * max + (1 - eta) * mean")
    reward_scale: float = Field(default=1.0, gt=0, description="rewards are multiplied by this first")
    max_abs_reward: float = Field(default=0.0, ge=0, description="then clipped to plus or minus this; 0 does not clip")
    exploration: ExplorationConfig = ExplorationConfig()
