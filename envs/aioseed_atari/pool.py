"""The fast engine: all games of a group in one EnvPool (Weng et al. 2022, arXiv:2206.10558)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import envpool
import numpy as np
from envpool.atari.registration import atari_game_list

from aioseed.errors import EnvironmentFailed
from aioseed.lookup import sentence_of
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed_atari.options import METRICS, AtariOptions

_SEEDS = 2**31


class _Pool(Protocol):
    """The part of an EnvPool of the kind gymnasium that is used here; infos hold one entry a game."""

    def reset(self, env_id: np.ndarray | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]: ...
    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]: ...
    def close(self) -> None: ...


class GamePool:
    """Step E games of one EnvPool as one `aioseed.types.BatchEnvironment`; its autoreset is NEXT_STEP already.

    EnvPool takes seeds when it is made alone: a reset of single rows, or a second one of all, goes on with the random
    numbers of those games.

    Raises:
        EnvironmentFailed: EnvPool raised while it was asked for its specs.
    """

    def __init__(self, name: str, options: AtariOptions, count: int) -> None:
        self._name = name
        self._options = options
        self._count = count
        self._settings = _settings(options)
        self._pool: _Pool | None = None
        try:
            space = envpool.make_spec(f"{name}-v5", **self._settings).action_space
        except Exception as error:
            raise EnvironmentFailed(f"{name} could not be made: {sentence_of(error)}") from error
        self._spec = EnvironmentSpec(ArraySpec("uint8", (options.size, options.size, 1)), discrete(int(space.n)))
        self._score = np.zeros(count, np.float64)
        self._ended = np.zeros(count, np.bool_)  # rows that the next step resets
        self._over = np.zeros(count, np.bool_)  # rows whose game is over, not only a life

    @property
    def spec(self) -> EnvironmentSpec:
        """Return the specs of one game."""
        return self._spec

    @property
    def metrics(self) -> tuple[EnvironmentMetric, ...]:
        """Return the metrics: the score."""
        return METRICS

    @property
    def count(self) -> int:
        """Return E."""
        return self._count

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Reset the games `rows`, one seed each where the pool is new, and write their FIRST rows only.

        Raises:
            EnvironmentFailed: EnvPool raised.
        """
        try:
            if self._pool is None:
                observation, _ = self._begin(rows, seeds).reset()
            else:
                observation, _ = self._pool.reset(rows.astype(np.int32))
        except Exception as error:
            raise EnvironmentFailed(f"{self._name} failed: {sentence_of(error)}") from error
        if len(observation) == self._count:
            observation = observation[rows]
        columns.observation[0][rows] = observation.reshape(len(rows), *columns.observation[0].shape[1:])
        columns.reward[rows] = 0.0
        columns.flags[rows] = FIRST
        columns.metrics[rows] = 0.0
        self._score[rows] = 0.0
        self._ended[rows] = self._over[rows] = False

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Step every game with its row of `actions` and write every row.

        Raises:
            EnvironmentFailed: EnvPool raised.
        """
        if self._pool is None:
            raise EnvironmentFailed(f"{self._name} was stepped before it was reset")
        try:
            observation, reward, terminated, truncated, info = self._pool.step(actions)
        except Exception as error:
            raise EnvironmentFailed(f"{self._name} failed: {sentence_of(error)}") from error
        count = self._count
        columns.observation[0][:count] = observation.reshape(count, *columns.observation[0].shape[1:])
        flags = columns.flags[:count]
        flags[:] = np.where(terminated, TERMINATED, np.where(truncated, TRUNCATED, 0))
        flags[self._ended] = FIRST
        columns.reward[:count] = np.where(self._ended, 0.0, reward)
        self._score = np.where(self._over, 0.0, self._score) + np.where(self._ended, 0.0, info["reward"])
        columns.metrics[:count, 0] = np.where(self._ended, 0.0, self._score)
        self._ended = (flags & (TERMINATED | TRUNCATED)) != 0
        # `terminated` of the info is of the game, that of the step of the life.
        self._over = self._ended & (truncated | (np.asarray(info["terminated"]) != 0))

    def close(self) -> None:
        """Free the pool. Idempotent."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _begin(self, rows: np.ndarray, seeds: Sequence[int]) -> _Pool:
        own = np.arange(self._count, dtype=np.int64)
        own[rows] = [int(seed) % _SEEDS for seed in seeds]
        pool: _Pool = envpool.make(
            f"{self._name}-v5",
            env_type="gymnasium",
            num_envs=self._count,
            num_threads=min(self._options.threads, self._count),
            env_seed=own.tolist(),
            **self._settings,
        )
        self._pool = pool
        return pool


def _settings(options: AtariOptions) -> dict[str, object]:
    return {
        "stack_num": 1,
        "gray_scale": True,
        "img_height": options.size,
        "img_width": options.size,
        "use_inter_area_resize": True,
        "frame_skip": options.frame_skip,
        "noop_max": max(options.noop_max, 1),  # EnvPool always begins with one
        "use_fire_reset": False,
        "episodic_life": options.terminal_on_life_loss,
        "reward_clip": False,
        "repeat_action_probability": options.repeat_action_probability,
        "full_action_space": options.full_action_space,
        "max_episode_steps": -(-options.max_frames // options.frame_skip),
    }


@cache
def known_games() -> frozenset[str]:
    """Return the names of all Atari games of EnvPool, ``Pong`` for ``Pong-v5``."""
    return frozenset("".join(word.capitalize() for word in game.split("_")) for game in atari_game_list)
