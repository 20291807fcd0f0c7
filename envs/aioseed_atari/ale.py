"""The reference engine: one game of ale-py, with every step of the preprocessing in sight.

In the order of Mnih et al. 2015 (Nature 518, Methods): an action is repeated, the two newest frames are joined pixel by
pixel (`brightest`), which removes flicker, and the result is made small (`shrunk`). Frames are grey from the engine on.
Stacking is the learner's.

Gymnasium makes a game and begins it; its frames are played by the emulator itself, since Gymnasium would draw all of
them, and of four two are looked at.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import ale_py
import ale_py.roms
import cv2
import gymnasium
import numpy as np

from aioseed.specs import ArraySpec, discrete
from aioseed.stepping import Leaves, Outcome
from aioseed.types import EnvironmentSpec
from aioseed_atari.options import METRICS, AtariOptions

__all__ = ["METRICS", "Game", "brightest", "known_games", "shrunk", "spec_of"]

_NO_OP = 0
_JOINED = 2  # frames


class Game:
    """Play one game after another (an `aioseed.stepping.SingleEnvironment`)."""

    def __init__(self, name: str, options: AtariOptions) -> None:
        self._options = options
        self._env = _make(name, options)
        self._ale = cast("ale_py.AtariEnv", self._env.unwrapped).ale
        full = options.full_action_space
        self._actions = self._ale.getLegalActionSet() if full else self._ale.getMinimalActionSet()
        self._over = True  # the next reset begins a new game
        self._lives = 0
        self._score = 0.0

    def reset(self, seed: int | None) -> Leaves:
        """Begin a game with no-ops; after a lost life, or a seed, go on with the game or begin a new one."""
        if self._over or seed is not None:
            self._new_game(seed)
        else:
            self._play(_NO_OP)
            if self._over:  # it ended in that very frame
                self._new_game(None)
        self._lives = self._ale.lives()
        return (shrunk(self._ale.getScreenGrayscale(), self._options.size),)

    def step(self, action: np.ndarray) -> Outcome:
        """Repeat an action, and end the episode with the game, with a life where so wanted, or at the cap."""
        newest: list[np.ndarray] = []
        reward = 0.0
        for left in reversed(range(self._options.frame_skip)):
            reward += self._play(int(action))
            if left < _JOINED or self._over:
                newest.append(self._ale.getScreenGrayscale())
            if self._over:
                break
        truncated = self._over and not self._ale.game_over(with_truncation=False)
        lost_life = self._options.terminal_on_life_loss and self._ale.lives() < self._lives
        self._lives = self._ale.lives()
        terminated = (self._over and not truncated) or lost_life
        observation = shrunk(brightest(newest), self._options.size)
        return Outcome((observation,), reward, terminated, truncated and not terminated, (self._score,))

    def close(self) -> None:
        """Free the engine."""
        self._env.close()

    def _new_game(self, seed: int | None) -> None:
        self._over, self._score = False, 0.0
        self._env.reset(seed=seed)
        most = self._options.noop_max
        for _ in range(int(self._env.unwrapped.np_random.integers(1, most + 1)) if most else 0):
            self._play(_NO_OP)
            if self._over:
                self._over, self._score = False, 0.0
                self._env.reset()

    def _play(self, action: int) -> float:
        """Play one frame and return what was gained in it; afterwards it is known whether the game is over."""
        gained = float(self._ale.act(self._actions[action]))
        self._over = self._ale.game_over()  # by its rules or at the cap
        self._score += gained
        return gained


def brightest(frames: list[np.ndarray]) -> np.ndarray:
    """Return the brightest value of each pixel over one or two frames uint8[210, 160]."""
    joined: np.ndarray = np.maximum(frames[0], frames[-1])
    return joined


def shrunk(frame: np.ndarray, size: int) -> np.ndarray:
    """Return uint8[size, size, 1]: each pixel the mean of the area that it covers."""
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA))[:, :, None]


def spec_of(name: str, options: AtariOptions) -> EnvironmentSpec:
    """Return the specs of a game."""
    env = _make(name, options)
    try:
        actions = cast("gymnasium.spaces.Discrete", env.action_space)
        return EnvironmentSpec(ArraySpec("uint8", (options.size, options.size, 1)), discrete(int(actions.n)))
    finally:
        env.close()


@cache
def known_games() -> frozenset[str]:
    """Return the names of all games that the engine brings, ``Pong`` for ``ALE/Pong-v5``."""
    gymnasium.register_envs(ale_py)
    ids = (spec.name for spec in gymnasium.registry.values() if spec.namespace == "ALE" and spec.version == 5)
    return frozenset(ids)


def _make(name: str, options: AtariOptions) -> gymnasium.Env[np.ndarray, int]:
    known_games()  # registers them
    return gymnasium.make(
        f"ALE/{name}-v5",
        obs_type="grayscale",
        frameskip=1,  # repeated here, since the two newest frames are wanted
        repeat_action_probability=options.repeat_action_probability,
        full_action_space=options.full_action_space,
        max_num_frames_per_episode=options.max_frames,
        disable_env_checker=True,
    )
