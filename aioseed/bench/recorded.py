"""Environments that play back what was recorded of another one, at the price of copying it.

They stand in for engines that are slower than the road: what is then measured is the road and the learner. Used as the
plug-in ``aioseed.bench.recorded:plugin``; ``environment.name`` is the one that is recorded, and the options say with
which plug-in (``of``), its options (``options``) and how many steps (``steps``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from aioseed.plugins import environment_plugin
from aioseed.specs import Json
from aioseed.types import FIRST, TERMINATED, BatchEnvironment, EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed.validation import validate
from aioseed.wire.columns import StepLayout


class RecordedOptions(BaseModel):
    """What ``environment.options`` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: str
    steps: Annotated[int, Field(ge=2)] = 128
    options: dict[str, JsonValue] = {}


class RecordedPlugin:
    """Make environments that play back (an `aioseed.types.EnvironmentPlugin`)."""

    preset_package = "aioseed"
    options_model = RecordedOptions

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Record `name` and return `count` environments that play it back.

        Raises:
            ConfigError, PluginError, SpaceError, EnvironmentFailed: As the plug-in that is recorded.
        """
        chosen = validate(RecordedOptions, options, "environment.options")
        played = environment_plugin(chosen.of).make(name, chosen.options, 1)
        try:
            return RecordedEnvironments(played.spec, played.metrics, record(played, chosen.steps), count)
        finally:
            played.close()

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return what must be equal between actors."""
        return {"name": name, **validate(RecordedOptions, options, "environment.options").model_dump(mode="json")}


def record(environment: BatchEnvironment, steps: int) -> list[StepColumns]:
    """Return the rows of a reset and of each step after it, `steps` in all; every action is 0. Thread: any one.

    Raises:
        EnvironmentFailed: As the environment.
    """
    count, action = environment.count, environment.spec.action.array
    layout = StepLayout(environment.spec.observation, len(environment.metrics))
    actions = np.zeros((count, *action.shape), action.numpy_dtype)
    recorded = [layout.allocate(count) for _ in range(steps)]
    environment.reset(np.arange(count), list(range(count)), recorded[0])
    for columns in recorded[1:]:
        environment.step(actions, columns)
    return recorded


class RecordedEnvironments:
    """Play one recording over and over, each environment from a place of its own; one turn is an episode.

    Args:
        spec: What each of them observes and takes.
        metrics: What each of them reports beside the reward.
        recorded: Rows of one environment.
        count: Environments that play them back.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        metrics: tuple[EnvironmentMetric, ...],
        recorded: Sequence[StepColumns],
        count: int,
    ) -> None:
        self._spec, self._metrics, self._count = spec, metrics, count
        steps = len(recorded)
        self._observation = [
            np.concatenate(leaves) for leaves in zip(*(row.observation for row in recorded), strict=True)
        ]
        self._reward = np.concatenate([row.reward for row in recorded])
        self._reward[0] = 0.0
        self._flags = np.zeros(steps, np.uint8)
        self._flags[0], self._flags[-1] = FIRST, TERMINATED
        self._steps = steps
        self._at = np.zeros(count, np.intp)

    @property
    def spec(self) -> EnvironmentSpec:
        """Return the specs of one environment."""
        return self._spec

    @property
    def metrics(self) -> tuple[EnvironmentMetric, ...]:
        """Return the metrics in the order of their columns; all of them stay 0."""
        return self._metrics

    @property
    def count(self) -> int:
        """Return E."""
        return self._count

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Write the first row of the recording, and go on from the place that the seed says."""
        for leaf, recorded in zip(columns.observation, self._observation, strict=True):
            leaf[rows] = recorded[0]
        columns.reward[rows] = 0.0
        columns.flags[rows] = FIRST
        columns.metrics[rows] = 0.0
        self._at[rows] = [seed % (self._steps - 1) for seed in seeds]

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Write the next row of every environment."""
        self._at = (self._at + 1) % self._steps
        for leaf, recorded in zip(columns.observation, self._observation, strict=True):
            np.take(recorded, self._at, axis=0, out=leaf[: self._count], mode="clip")  # unbuffered only with a mode
        columns.reward[: self._count] = self._reward[self._at]
        columns.flags[: self._count] = self._flags[self._at]
        columns.metrics[: self._count] = 0.0

    def close(self) -> None:
        """Free nothing: what was recorded is closed already."""


plugin = RecordedPlugin()
