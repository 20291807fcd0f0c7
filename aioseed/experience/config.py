"""The section `experience` of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ExperienceConfig(BaseModel):
    """Say how long unrolls are and how many may wait."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unroll_steps: int = Field(default=20, ge=1, description="Steps that an unroll adds to the one before it (L).")
    queue_batches: int = Field(
        default=2,
        ge=1,
        description="Full batches that may wait for training before actions are delayed; more of them mean more lag.",
    )
    page_locked: bool = Field(
        default=True,
        description="Keep what an accelerator reads in page-locked memory, which it reads several times as fast.",
    )
    copy_threads: int | None = Field(
        default=None,
        ge=0,
        description="Threads that help with large copies; null: as many as there are processors to spare, 8 at most.",
    )
