"""Options of the V-trace agent: SEED RL's for the same agent, with its defaults."""

from __future__ import annotations

from pydantic import Field

from aioseed.agents.actor_critic import ActorCriticConfig


class VtraceConfig(ActorCriticConfig):
    """Configure V-trace. Losses are means over valid steps: coefficients do not depend on batch or unroll sizes."""

    lambda_: float = Field(default=1.0, ge=0, le=1, description="1: V-trace of the paper; 0: one-step targets")
    kl_cost: float = Field(default=0.0, ge=0, description="weight of KL(behaviour | learned policy)")
    clip_rho: float | None = Field(
        default=1.0, gt=0, description="bound of importance weights in targets; null for none"
    )
    clip_pg_rho: float | None = Field(
        default=1.0, gt=0, description="bound of importance weights in policy gradients; null for none"
    )
