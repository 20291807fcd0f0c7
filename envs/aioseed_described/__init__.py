"""Environments that no Python can make, for aioseed: a game in a browser, an engine in C#, a robot.

Their clients speak the wire by themselves (docs/reference/wire.md). A learner compiles for the specs of its environment
before the first actor is let in, so they stand in the configuration, in the form in which HELLO has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from aioseed.errors import ConfigError, SpaceError
from aioseed.specs import Json, action_from_json, check_servable, observation_from_json
from aioseed.types import BatchEnvironment, EnvironmentMetric, EnvironmentSpec
from aioseed.validation import validate

__all__ = ["DescribedOptions", "DescribedPlugin", "plugin"]

OPTIONS_PATH = "environment.options"
MAX_METRICS = 64


class MetricOptions(BaseModel):
    """Name a scalar that every STEP carries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64, description="Name, as the views show it.")]
    fold: Annotated[
        Literal["sum", "last", "max"], Field(description="How the values of an episode become one: sum, last or max.")
    ]


class DescribedOptions(BaseModel):
    """Say what an environment shows and takes, as HELLO says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    observation: Annotated[
        dict[str, JsonValue], Field(description="Observation spec of HELLO, such as `{dtype: float32, shape: [4]}`.")
    ]
    action: Annotated[
        dict[str, JsonValue],
        Field(description="Action spec of HELLO, such as `{kind: discrete, dtype: int32, shape: [], sizes: [2]}`."),
    ]
    metrics: Annotated[
        tuple[MetricOptions, ...], Field(max_length=MAX_METRICS, description="The metrics of HELLO, in its order.")
    ] = ()

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, metrics: tuple[MetricOptions, ...]) -> tuple[MetricOptions, ...]:
        if len({metric.name for metric in metrics}) != len(metrics):
            raise ValueError("metrics of different names")
        return metrics


class DescribedPlugin:
    """Tell the specs of a configuration (an `aioseed.types.EnvironmentPlugin` that knows specs and makes nothing)."""

    preset_package = "aioseed_described"
    options_model = DescribedOptions
    """What ``environment.options`` may say, for the schema of the configuration."""

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Refuse: who plays this environment is its own client.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f'nothing here can step "{name}": an environment of the plugin "described" lives in its own clients; start '
            "`aioseed learner` or `aioseed evaluate --listen` and let them join",
            path="environment.plugin",
            value="described",
            expected="an environment that Python can make",
        )

    def specs(self, name: str, options: Mapping[str, Json]) -> tuple[EnvironmentSpec, tuple[EnvironmentMetric, ...]]:
        """Return the specs and metrics that `options` describe.

        Raises:
            ConfigError: A wrong option.
            SpaceError: A spec is none that can be served; names the option.
        """
        settings = validate(DescribedOptions, options, OPTIONS_PATH)
        try:
            observation = observation_from_json(settings.observation)
        except SpaceError as error:
            raise SpaceError(f"{OPTIONS_PATH}.observation: {error}") from error
        try:
            action = action_from_json(settings.action)
        except SpaceError as error:
            raise SpaceError(f"{OPTIONS_PATH}.action: {error}") from error
        check_servable(observation, action)
        return EnvironmentSpec(observation, action), tuple(
            EnvironmentMetric(metric.name, metric.fold) for metric in settings.metrics
        )

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return no configuration: specs are compared anyway, and what shapes them is known to the clients alone.

        Raises:
            ConfigError: A wrong option.
        """
        validate(DescribedOptions, options, OPTIONS_PATH)
        return {}


plugin = DescribedPlugin()
"""What the entry point names."""
