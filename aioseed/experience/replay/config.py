"""The section `replay` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class HindsightConfig(BaseModel):
    """Say which goals are replaced by such as were reached (Andrychowicz et al. 2017), and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window_steps: int = Field(
        ge=1,
        description="Steps of what is stored, at least `experience.unroll_steps`: an unroll is cut out of it at "
        "random, and what is reached later in it may become its goal.",
    )
    probability: float = Field(default=0.8, ge=0, le=1, description="Share of the pieces of episodes that get one.")
    reward: str = Field(
        description="`package.module:function` of achieved and desired goals [N, ...]: the part of a reward that "
        "depends on the goal, as the environment gives it."
    )
    achieved: str = Field(default="achieved_goal", description="Key of the observation that says what was reached.")
    desired: str = Field(default="desired_goal", description="Key of the observation that says what was wanted.")


class ReplayConfig(BaseModel):
    """Say how much is remembered, how it is drawn, and how often; defaults are SEED RL's for R2D2."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    capacity_unrolls: int = Field(
        default=100, ge=1, description="Most unrolls that are remembered; the oldest go first."
    )
    min_unrolls: int = Field(default=10, ge=1, description="Nothing is learned before so many were inserted.")
    samples_per_insert: float | None = Field(
        default=1.5,
        gt=0,
        description="Unrolls sampled for each one inserted; whoever is ahead waits. null: both run freely.",
    )
    slack_unrolls: float | None = Field(
        default=None,
        gt=0,
        description="How many sampled unrolls either side may be ahead by; null: the least that cannot deadlock.",
    )
    insert_unrolls: int | None = Field(
        default=None, ge=1, description="Unrolls inserted together; null: as many as one update's samples are owed for."
    )
    sampling: Literal["prioritized", "uniform"] = "prioritized"
    # Above it, powers of the lowest and the highest priority leave float64: some unrolls could not be drawn any more.
    priority_exponent: float = Field(
        default=0.9, ge=0, le=10, description="Power of a priority that makes its probability."
    )
    importance_exponent: float = Field(
        default=0.6, ge=0, le=1, description="How much of that the importance weights undo; 1 undoes all of it."
    )
    hindsight: HindsightConfig | None = Field(
        default=None, description="For environments with goals: learn from what was reached as if it had been wanted."
    )
    max_bytes: int | None = Field(
        default=None, ge=1, description="Memory that replay may take; null: three quarters of this machine's."
    )

    @model_validator(mode="after")
    def _fits_its_capacity(self) -> ReplayConfig:
        if self.min_unrolls > self.capacity_unrolls:
            raise ValueError(f"min_unrolls must not exceed capacity_unrolls, which is {self.capacity_unrolls}")
        if self.insert_unrolls is not None and self.insert_unrolls > self.capacity_unrolls:
            # The first of them would be forgotten before anything could be drawn.
            raise ValueError(f"insert_unrolls must not exceed capacity_unrolls, which is {self.capacity_unrolls}")
        return self

    def stored_steps(self, unroll_steps: int) -> int:
        """Return the steps of what is inserted, where unrolls of `unroll_steps` are learned from."""
        return unroll_steps if self.hindsight is None else self.hindsight.window_steps

    def chunk_unrolls(self, sample_unrolls: int) -> int:
        """Return how many unrolls are inserted together, where `sample_unrolls` are sampled together."""
        if self.insert_unrolls is not None:
            return self.insert_unrolls
        owed = sample_unrolls / self.samples_per_insert if self.samples_per_insert else sample_unrolls
        return max(1, min(int(owed), self.capacity_unrolls))
