"""The section `training` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.validation import DeviceName

PositiveInt = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class ScheduleConfig(BaseModel):
    """Say how the learning rate falls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["constant", "linear", "polynomial"] = "constant"
    end_value: float = Field(default=0.0, ge=0, description="Learning rate at the end of the schedule and after it.")
    power: float = Field(default=1.0, gt=0, description="Exponent of a polynomial schedule; 1 is linear.")
    updates: PositiveInt | None = Field(
        default=None,
        description=(
            "Optimiser steps until the end; null: as many as `training.total_steps` environment steps fill, without "
            "those that fill `replay.min_unrolls`, as if episodes never ended. The first row of each episode fills a "
            "place in an unroll and is no step, so with episodes of n steps a run makes (n + 1) / n times as many, the "
            "last of them at `end_value`."
        ),
    )


class OptimizerConfig(BaseModel):
    """Choose the optimiser and its constants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    epsilon: float = Field(
        default=1e-8,
        gt=0,
        description="Added to the denominator (adam), or to the mean of squares, below the root (rmsprop).",
    )
    beta1: Share = Field(default=0.9, description="Decay of the mean of the gradient (adam).")
    beta2: Share = Field(default=0.999, description="Decay of the mean of its square (adam).")
    decay: Share = Field(default=0.99, description="Decay of the mean of the gradient's square (rmsprop).")
    momentum: Share = Field(default=0.0, description="Of rmsprop and sgd; 0 for none.")
    clip_norm: float | None = Field(default=None, gt=0, description="Bound of the gradient's global norm; null: none.")
    schedule: ScheduleConfig = ScheduleConfig()


class CheckpointConfig(BaseModel):
    """Say how often to save and how many checkpoints to keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_s: Seconds | None = Field(default=60.0, description="Seconds between two saves; null: not by time.")
    every_updates: PositiveInt | None = Field(
        default=None, description="Optimiser steps between two saves; null: not by steps."
    )
    replay: bool = Field(
        default=False, description="Save replay too: what was inserted since the last save is appended."
    )
    keep: int = Field(
        default=2, ge=2, description="Checkpoints to keep; only those that verify count. Two, so that one may go bad."
    )


class TrainingConfig(BaseModel):
    """Say what one optimiser step averages over, how it is made, and when training ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_unrolls: PositiveInt = Field(default=32, description="Unrolls that one optimiser step averages over.")
    updates_per_call: PositiveInt = Field(
        default=1, description="Optimiser steps of one pass of a compiled call, each on its own unrolls."
    )
    passes: PositiveInt = Field(
        default=1,
        description=(
            "How often a compiled call goes over its unrolls. Each pass after the first shares them out anew among "
            "`updates_per_call` optimiser steps. More than one is for losses that bound their steps, such as PPO's."
        ),
    )
    micro_unrolls: PositiveInt | None = Field(
        default=None,
        description="Unrolls that go through the network at once; their gradients add up. Saves memory and cache.",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    total_steps: PositiveInt | None = Field(
        default=None, description="Environment steps to train on; null: until something else ends the run."
    )
    max_nonfinite_updates: PositiveInt = Field(
        default=10,
        description=(
            "Non-finite optimiser steps in a row after which training fails; of several passes over the same unrolls "
            "the first counts."
        ),
    )
    devices: tuple[DeviceName, ...] = Field(
        default=("default",),
        description=(
            "Where training runs: `default`, or platform and index such as `cpu:0` or `gpu:1`. Several share the "
            "unrolls of each step evenly; their number must divide `micro_unrolls`, or `batch_unrolls` without it."
        ),
    )
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _pieces_fit(self) -> TrainingConfig:
        if self.micro_unrolls is not None and self.batch_unrolls % self.micro_unrolls:
            raise ValueError(f"micro_unrolls must divide batch_unrolls, which is {self.batch_unrolls}")
        return self

    @model_validator(mode="after")
    def _devices_share(self) -> TrainingConfig:
        if not self.devices:  # no bound of the field, which would be told of too where one of the names is wrong
            raise ValueError("devices names none")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError("devices names a device twice")
        if self.piece_unrolls % len(self.devices):
            name = "batch_unrolls" if self.micro_unrolls is None else "micro_unrolls"
            raise ValueError(
                f"{len(self.devices)} devices cannot share {self.piece_unrolls} unrolls evenly: "
                f"make {name} a multiple of {len(self.devices)}"
            )
        return self

    @model_validator(mode="after")
    def _schedule_ends(self) -> TrainingConfig:
        schedule = self.optimizer.schedule
        if schedule.kind != "constant" and schedule.updates is None and self.total_steps is None:
            raise ValueError("a schedule that falls needs optimizer.schedule.updates or total_steps to know its length")
        return self

    @property
    def piece_unrolls(self) -> int:
        """Return the unrolls that go through the network at once."""
        return self.micro_unrolls or self.batch_unrolls

    @property
    def call_unrolls(self) -> int:
        """Return the unrolls of one compiled call, which is what `UnrollSource.take` must hand over."""
        return self.batch_unrolls * self.updates_per_call

    @property
    def call_updates(self) -> int:
        """Return the optimiser steps of one compiled call."""
        return self.updates_per_call * self.passes
