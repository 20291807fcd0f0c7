"""Google Research Football for aioseed: one agent leads one team, as in Kurach et al. 2020 (arXiv:1907.11180).

This is the thin face: it makes environments and ships presets. The engine (gfootball) wants another NumPy than a
learner has, so actors live in a virtual environment of their own and a learner knows the specs without it.
"""

from __future__ import annotations

from collections.abc import Mapping

from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean
from aioseed.specs import Json
from aioseed.stepping import SequentialEnvironments
from aioseed.types import BatchEnvironment, EnvironmentMetric, EnvironmentSpec
from aioseed.validation import validate
from aioseed_football.options import OPTIONS_PATH, FootballOptions, spec_of
from aioseed_football.scenarios import SCENARIOS

__all__ = ["FootballOptions", "FootballPlugin", "plugin"]

METRICS = (EnvironmentMetric("score", "sum"),)
"""The difference of goals, whatever the reward is."""


class FootballPlugin:
    """Make football matches (an `aioseed.types.EnvironmentPlugin` that knows its specs)."""

    preset_package = "aioseed_football"
    options_model = FootballOptions
    """What ``environment.options`` may say, for the schema of the configuration."""

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Build `count` matches of the scenario `name`, for example ``academy_empty_goal_close``.

        Raises:
            ConfigError: No such scenario (the message offers near names) or a wrong option.
            PluginError: gfootball is missing; says how to install it.
            EnvironmentFailed: The engine raised while it was built.
        """
        settings = self._settings(name, options)
        # gfootball takes a second to import and is not there on a learner.
        from aioseed_football.match import match_builder

        spec = spec_of(settings)
        build = match_builder(name, settings)
        return SequentialEnvironments(build, count, name, spec, METRICS, max_rebuilds=settings.max_rebuilds)

    def specs(self, name: str, options: Mapping[str, Json]) -> tuple[EnvironmentSpec, tuple[EnvironmentMetric, ...]]:
        """Return specs and metrics without the engine.

        Raises:
            ConfigError: No such scenario or a wrong option.
        """
        return spec_of(self._settings(name, options)), METRICS

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return what must be equal between actors: the scenario and all that shapes observations and rewards.

        Raises:
            ConfigError: A wrong option.
        """
        settings = validate(FootballOptions, options, OPTIONS_PATH)
        return {"name": name, **settings.model_dump(mode="json", exclude={"max_rebuilds"})}

    def _settings(self, name: str, options: Mapping[str, Json]) -> FootballOptions:
        if name not in SCENARIOS:
            raise ConfigError(
                f'there is no football scenario "{name}"{did_you_mean(name, SCENARIOS)}',
                path="environment.name",
                value=name,
                expected=f"one of {', '.join(SCENARIOS)}",
            )
        return validate(FootballOptions, options, OPTIONS_PATH)


plugin = FootballPlugin()
"""What the entry point names."""
