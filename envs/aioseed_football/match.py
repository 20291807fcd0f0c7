"""One match of Google Research Football behind `aioseed.stepping.SingleEnvironment`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np

from aioseed.errors import PluginError
from aioseed.stepping import Leaves, Outcome
from aioseed_football.options import MINIMAP_SIZES, FootballOptions

DEBIAN_PACKAGES = (
    "build-essential cmake python3-dev python3-venv libsdl2-dev libsdl2-image-dev libsdl2-ttf-dev libsdl2-gfx-dev "
    "libgl1-mesa-dev libegl-dev libboost-python-dev libboost-thread-dev libboost-filesystem-dev libboost-system-dev"
)
"""What gfootball is compiled against."""

_REMEDY = (
    "Google Research Football is compiled when it is installed, and wants NumPy 1 and gym 0.25.2: give actors a "
    f"virtual environment of their own with `make football`; on Debian it needs apt install {DEBIAN_PACKAGES}"
)


class _Game(Protocol):
    """The part of a gfootball environment (older Gym: no seed in reset, four values from step) that is used here."""

    unwrapped: _Unwrapped

    def reset(self) -> np.ndarray: ...
    def step(self, action: int) -> tuple[np.ndarray, float, bool, dict[str, float]]: ...
    def close(self) -> None: ...


class _Unwrapped(Protocol):
    _config: dict[str, object]


class Match:
    """Play one match after another.

    An episode ends where gfootball ends it, the final whistle included: it terminates, as in SEED RL.

    Args:
        game: A gfootball environment with its representation and reward wrappers.
        packed: Whether observations are minimaps, whose bits are packed along the last axis.
    """

    def __init__(self, game: _Game, *, packed: bool) -> None:
        self._game = game
        self._packed = packed
        self._config = game.unwrapped._config
        self._random = np.random.default_rng()

    def reset(self, seed: int | None) -> Leaves:
        """Kick off. The engine takes its random numbers from a seed that is drawn anew for each match."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
            self._config["episode_number"] = 0  # scenarios change sides by it
        engine_seed = int(self._random.integers(2**31 - 1))
        self._config["game_engine_random_seed"] = engine_seed
        # gfootball itself draws this once an environment, from the first seed.
        self._config["reverse_team_processing"] = bool(engine_seed % 2)
        return self._leaves(self._game.reset())

    def step(self, action: np.ndarray) -> Outcome:
        """Take one of the 19 actions."""
        observation, reward, done, info = self._game.step(int(action))
        return Outcome(self._leaves(observation), float(reward), bool(done), False, (float(info["score_reward"]),))

    def close(self) -> None:
        """Give the engine back."""
        self._game.close()

    def _leaves(self, observation: np.ndarray) -> Leaves:
        if self._packed:
            return (np.packbits(observation != 0, axis=-1),)
        return (observation,)


def match_builder(scenario: str, options: FootballOptions) -> Callable[[], Match]:
    """Return a function that makes one match.

    Raises:
        PluginError: gfootball cannot be imported.
    """
    # Read when the engine is loaded: there is no screen where actors run.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        football = importlib.import_module("gfootball.env")
    except ImportError as error:
        message = f"gfootball cannot be imported ({error}). {_REMEDY}"
        raise PluginError(message, group="aioseed.envs", name="football") from error
    rows, columns = MINIMAP_SIZES[options.smm_size]
    packed = options.observation == "smm"

    def build() -> Match:
        game = football.create_environment(
            env_name=scenario,
            representation="extracted" if packed else "simple115v2",
            rewards="scoring,checkpoints" if options.reward == "checkpoints" else "scoring",
            channel_dimensions=(columns, rows),
        )
        return Match(cast("_Game", game), packed=packed)

    return build
