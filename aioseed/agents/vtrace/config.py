"""Options of the V-trace agent: SEED RL's for the same agent, with its defaults."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.agents.actions import ActionConfig


class VtraceConfig(BaseModel):
    """Configure V-trace. Losses are means over valid steps: coefficients do not depend on batch or unroll sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    discount: float = Field(default=0.99, ge=0, le=1, description="gamma, for one transition")
    lambda_: float = Field(default=1.0, ge=0, le=1, description="1: V-trace of the paper; 0: one-step targets")
    entropy_cost: float = Field(
        default=0.00025, ge=0, description="weight of the entropy; its start where it is adjusted"
    )
    target_entropy: float | None = Field(
        default=None,
        description="entropy in nats that the entropy cost is adjusted to reach; null keeps the cost fixed",
    )
    entropy_cost_adjustment_speed: float = Field(
        default=10.0, gt=0, description="how fast the entropy cost moves: it is exp(speed x parameter)"
    )
    baseline_cost: float = Field(
        default=0.5, ge=0, description="weight of the value loss, which is half the squared error"
    )
    kl_cost: float = Field(default=0.0, ge=0, description="weight of KL(behaviour | learned policy)")
    reward_scale: float = Field(default=1.0, gt=0, description="rewards are multiplied by this first")
    max_abs_reward: float = Field(default=0.0, ge=0, description="then clipped to plus or minus this; 0 does not clip")
    clip_rho: float | None = Field(
        default=1.0, gt=0, description="bound of importance weights in targets; null for none"
    )
    clip_pg_rho: float | None = Field(
        default=1.0, gt=0, description="bound of importance weights in policy gradients; null for none"
    )
    action: ActionConfig = ActionConfig()

    @model_validator(mode="after")
    def _adjustable(self) -> Self:
        if self.target_entropy is not None and self.entropy_cost == 0:
            raise ValueError(
                "entropy_cost must be above 0 where target_entropy is given, since it is adjusted by factors"
            )
        return self
