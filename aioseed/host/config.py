"""The whole configuration of a run: each room owns its section, the host composes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from aioseed.actor.config import ActorConfig, EnvironmentConfig
from aioseed.experience.config import ExperienceConfig
from aioseed.experience.replay.config import ReplayConfig
from aioseed.presets import apply_overrides, read
from aioseed.serving.config import ServingConfig
from aioseed.training.config import TrainingConfig
from aioseed.transport.config import TransportConfig
from aioseed.validation import validate


class PluginSection(BaseModel):
    """Name a plug-in; the keys beside are its options, which it checks itself."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    def section(self) -> dict[str, JsonValue]:
        """Return name and options as one mapping."""
        return self.model_dump()


class TelemetryConfig(BaseModel):
    """Say how often to report and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    every_s: Annotated[float, Field(gt=0)] = 1.0
    tensorboard: bool = True


class StopConfig(BaseModel):
    """Say when a run is over, beside `training.total_steps`; null never ends it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    return_mean: Annotated[
        float | None, Field(description="Mean return of the last `episodes` finished training episodes.")
    ] = None
    episodes: Annotated[int, Field(ge=1)] = 100


class RunConfig(BaseModel):
    """Describe a run completely; what `config.json` in a run directory holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    mode: Annotated[
        Literal["free", "lockstep"],
        Field(description="lockstep gives equal bits run after run, at the price of speed."),
    ] = "free"
    environment: EnvironmentConfig
    actor: ActorConfig = ActorConfig()
    serving: ServingConfig = ServingConfig()
    experience: ExperienceConfig = ExperienceConfig()
    replay: Annotated[
        ReplayConfig | None, Field(description="Learn from replay; null learns from unrolls as they come.")
    ] = None
    agent: PluginSection = PluginSection(name="vtrace")
    network: PluginSection = PluginSection(name="mlp")
    transforms: Annotated[
        tuple[PluginSection, ...],
        Field(description="Observation transforms in front of the network, in order: each a name and its options."),
    ] = ()
    training: TrainingConfig = TrainingConfig()
    transport: TransportConfig = TransportConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    stop: StopConfig = StopConfig()

    @property
    def local_environments(self) -> int:
        """Return how many environments the local actors step together."""
        return self.actor.processes * self.actor.groups * self.actor.envs_per_group


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset by name or a YAML, TOML or JSON file, apply ``dotted.path=value`` overrides and check all of it.

    Raises:
        ConfigError: Names the path, the value and what was expected.
    """
    return validate(RunConfig, apply_overrides(read(str(source)), list(overrides)), "")
