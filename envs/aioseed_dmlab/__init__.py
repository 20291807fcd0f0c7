"""DeepMind Lab for aioseed: first-person levels, DMLab-30 above all (Beattie et al. 2016, arXiv:1612.03801).

This is the thin face: it makes environments, ships presets and names the suite. The engine is not on PyPI; a learner
knows the specs without it.
"""

from __future__ import annotations

from collections.abc import Mapping

from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean
from aioseed.specs import Json
from aioseed.stepping import SequentialEnvironments
from aioseed.types import BatchEnvironment, EnvironmentMetric, EnvironmentSpec
from aioseed.validation import validate
from aioseed_dmlab.lab import lab_builder
from aioseed_dmlab.levels import LEVELS, dmlab30
from aioseed_dmlab.options import OPTIONS_PATH, DmlabOptions, spec_of

__all__ = ["DmlabOptions", "DmlabPlugin", "dmlab30", "plugin"]


class DmlabPlugin:
    """Make levels of DeepMind Lab (an `aioseed.types.EnvironmentPlugin` that knows its specs)."""

    preset_package = "aioseed_dmlab"
    options_model = DmlabOptions
    """What ``environment.options`` may say, for the schema of the configuration."""

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Build `count` environments of the level `name`: one of DMLab-30, or a path with slashes to any other.

        Raises:
            ConfigError: No such level (the message offers near names) or a wrong option.
            PluginError: deepmind_lab is missing; says how to install it.
            EnvironmentFailed: The engine raised while it was built.
        """
        settings = self._settings(name, options)
        build = lab_builder(name, settings)
        return SequentialEnvironments(build, count, name, spec_of(settings), max_rebuilds=settings.max_rebuilds)

    def specs(self, name: str, options: Mapping[str, Json]) -> tuple[EnvironmentSpec, tuple[EnvironmentMetric, ...]]:
        """Return specs and metrics without the engine.

        Raises:
            ConfigError: No such level or a wrong option.
        """
        return spec_of(self._settings(name, options)), ()

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return what must be equal between actors: the level and all that shapes it, but no paths of a machine.

        Raises:
            ConfigError: A wrong option.
        """
        settings = validate(DmlabOptions, options, OPTIONS_PATH)
        local = {"dataset_path", "level_cache_dir", "renderer", "max_rebuilds"}
        return {"name": name, **settings.model_dump(mode="json", exclude=local)}

    def _settings(self, name: str, options: Mapping[str, Json]) -> DmlabOptions:
        if "/" not in name and name not in LEVELS:
            raise ConfigError(
                f'there is no level "{name}" in DMLab-30{did_you_mean(name, LEVELS)}; other levels are named with '
                "their folder, as in tests/empty_room_test",
                path="environment.name",
                value=name,
                expected="a level of DMLab-30, or a path with slashes",
            )
        return validate(DmlabOptions, options, OPTIONS_PATH)


plugin = DmlabPlugin()
"""What the entry point names."""
