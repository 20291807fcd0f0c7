"""Options of the PPO agent."""

from __future__ import annotations

from pydantic import Field

from aioseed.agents.actor_critic import ActorCriticConfig


class PpoConfig(ActorCriticConfig):
    """Configure PPO. Losses are means over valid steps; values and advantages are brought to a deviation of 1 before
    they are weighed, so that coefficients do not depend on the size of rewards either.
    """

    entropy_cost: float = Field(default=0.0, ge=0, description="weight of the entropy; its start where it is adjusted")
    lambda_: float = Field(default=0.95, ge=0, le=1, description="of generalised advantages; 0: one step ahead")
    clip_ratio: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="how far the probability of an action may move from that with which it was taken, as a share",
    )
    clip_rho: float | None = Field(
        default=None,
        gt=0,
        description="bound of importance weights that correct values and advantages for policies that have moved, as "
        "V-trace does; null: none are",
    )
