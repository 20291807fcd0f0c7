"""Options of the SAC agent: SEED RL's for the same agent, with its defaults where it has them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.agents.actions import ActionConfig


class SacConfig(BaseModel):
    """Configure SAC. Losses are means over valid steps: coefficients do not depend on batch or unroll sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    discount: float = Field(default=0.99, ge=0, le=1, description="gamma, for one transition")
    critics: int = Field(default=2, ge=1, description="how many; targets and policy see the smallest of their values")
    entropy_cost: float = Field(
        default=0.01, gt=0, description="weight of the entropy (the temperature); its start where it is adjusted"
    )
    target_entropy: float | Literal["auto"] | None = Field(
        default="auto",
        description="entropy in nats, of actions rescaled to [-1, 1], that the entropy cost is adjusted to reach; "
        "auto: minus one for each element of the action; null keeps the cost fixed",
    )
    entropy_cost_adjustment_speed: float = Field(
        default=1.0, gt=0, description="how fast the entropy cost moves: it is exp(speed x parameter)"
    )
    polyak: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="share of itself that a target network keeps when it is updated, the rest comes from the critic: 0 "
        "copies the critic, 1 leaves the target as it is for ever",
    )
    update_target_every: int = Field(
        default=1, ge=1, le=2**31 - 1, description="optimiser steps between updates of the targets"
    )
    reward_scale: float = Field(default=1.0, gt=0, description="rewards are multiplied by this first")
    max_abs_reward: float = Field(default=0.0, ge=0, description="then clipped to plus or minus this; 0 does not clip")
    action: ActionConfig = ActionConfig()

    @model_validator(mode="after")
    def _differentiable(self) -> Self:
        if self.action.squash != "tanh":
            raise ValueError(
                "action.squash must be tanh: the policy learns from the gradient of the critics along the action, and "
                "a clipped action has none at its bounds"
            )
        return self
