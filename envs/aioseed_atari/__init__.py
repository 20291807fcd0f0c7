"""Atari 2600 games for aioseed, from the Arcade Learning Environment (Bellemare et al. 2013, arXiv:1207.4708).

This is the thin face: it makes environments, ships presets and names the suite. Two engines stand behind one set of
options: ale-py through Gymnasium, one game after another in Python, and EnvPool, all games of a group in C++.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec

from aioseed.errors import ConfigError, PluginError
from aioseed.lookup import did_you_mean
from aioseed.specs import Json
from aioseed.stepping import SequentialEnvironments
from aioseed.types import BatchEnvironment
from aioseed.validation import validate
from aioseed_atari.games import GAMES, atari57
from aioseed_atari.options import OPTIONS_PATH, AtariOptions

__all__ = ["AtariOptions", "AtariPlugin", "atari57", "plugin"]


class AtariPlugin:
    """Make Atari games (an `aioseed.types.EnvironmentPlugin`)."""

    preset_package = "aioseed_atari"
    options_model = AtariOptions
    """What ``environment.options`` may say, for the schema of the configuration."""

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Build `count` games `name`, for example ``Pong``.

        Raises:
            ConfigError: No such game (the message offers near names) or a wrong option.
            PluginError: The engine is missing; names the extra that brings it.
            EnvironmentFailed: The engine raised while it was built.
        """
        settings = validate(AtariOptions, options, OPTIONS_PATH)
        if settings.engine == "envpool" or (settings.engine == "auto" and find_spec("envpool") is not None):
            return self._pool(name, settings, count)
        return self._sequential(name, settings, count)

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return what must be equal between actors: the game and what shapes it, but not which engine plays it.

        Raises:
            ConfigError: A wrong option.
        """
        settings = validate(AtariOptions, options, OPTIONS_PATH)
        return {"name": name, **settings.model_dump(mode="json", exclude={"engine", "threads", "max_rebuilds"})}

    def _pool(self, name: str, settings: AtariOptions, count: int) -> BatchEnvironment:
        try:
            from aioseed_atari.pool import GamePool, known_games
        except ImportError as error:
            raise _missing("envpool", "envpool", error) from error
        _check_game(name, known_games())
        return GamePool(name, settings, count)

    def _sequential(self, name: str, settings: AtariOptions, count: int) -> BatchEnvironment:
        try:
            from aioseed_atari.ale import METRICS, Game, known_games, spec_of
        except ImportError as error:
            raise _missing("ale", "atari", error) from error
        _check_game(name, known_games())
        spec = spec_of(name, settings)
        build = partial(Game, name, settings)
        return SequentialEnvironments(build, count, name, spec, METRICS, max_rebuilds=settings.max_rebuilds)


def _missing(engine: str, extra: str, error: ImportError) -> PluginError:
    return PluginError(
        f'the Atari engine {engine} needs the module "{error.name}", which is not installed: '
        f'pip install "aioseed[{extra}]"',
        group="aioseed.envs",
        name="atari",
        extra=extra,
    )


def _check_game(name: str, known: frozenset[str]) -> None:
    if name not in known:
        raise ConfigError(
            f'there is no Atari game "{name}"{did_you_mean(name, known)}',
            path="environment.name",
            value=name,
            expected=f"a game as in {', '.join(list(GAMES)[:3])} or Pong",
        )


plugin = AtariPlugin()
"""What the entry point names."""
