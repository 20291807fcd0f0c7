"""An environment plugin of one's own: the corridor, with a metric beside the reward.

Name it in a preset as ``plugin: own_plugin:plugin``; every name that its `make` knows is an environment.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium.wrappers import TimeLimit
from own_environment import Corridor

from aioseed.specs import ArraySpec, Json, discrete
from aioseed.stepping import Leaves, Outcome, SequentialEnvironments
from aioseed.types import EnvironmentMetric, EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (1,)), discrete(2))
METRICS = (EnvironmentMetric("reached", "last"),)


class Walk:
    """Walk one corridor, and say whether its end was reached."""

    def __init__(self) -> None:
        self._env = TimeLimit(Corridor(), 100)

    def reset(self, seed: int | None) -> Leaves:
        """Begin an episode."""
        observation, _ = self._env.reset(seed=seed)
        return (observation,)

    def step(self, action: np.ndarray) -> Outcome:
        """Walk one step. What `info` holds would do for the metric as well."""
        observation, reward, terminated, truncated, _ = self._env.step(int(action))
        return Outcome((observation,), float(reward), terminated, truncated, (float(terminated),))

    def close(self) -> None:
        """Free what it holds: nothing."""


class CorridorPlugin:
    """Make groups of corridors."""

    preset_package = "own_plugin"

    def make(self, name: str, options: Mapping[str, Json], count: int) -> SequentialEnvironments:
        """Return so many corridors as one group."""
        return SequentialEnvironments(Walk, count, name, SPEC, METRICS)

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return what must be equal between the actors of a run, beside the name."""
        return dict(options)


plugin = CorridorPlugin()
