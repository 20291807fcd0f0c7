"""An environment that counts: every row follows from its seed and from the actions that it was given.

An observation holds the seed of the last reset, the number of the episode, the number of the step in the episode and
the action that led to it. Episodes end after a number of steps that follows from seed and episode, terminated and
truncated in turn. So a row that was lost, mixed up or applied twice, and an action that went to another environment,
all show in the observations, and `aioseed.testing.tracer` shows them in the recurrent state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec, StepColumns

__all__ = ["ACTIONS", "COUNTING_SPEC", "CountingEnvironment", "episode_steps"]

ACTIONS = 4096
COUNTING_SPEC = EnvironmentSpec(ArraySpec("uint32", (4,)), discrete(ACTIONS))
"""Observations are (seed, episode, step, last action)."""


def episode_steps(seed: int, episode: int) -> int:
    """Return how many steps an episode has: 1 to 16, different from one to the next."""
    return 1 + ((seed >> 3) + 7 * episode) % 16


class CountingEnvironment:
    """Count `count` environments (implements `aioseed.types.BatchEnvironment`)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.spec = COUNTING_SPEC
        self.metrics: tuple[EnvironmentMetric, ...] = (EnvironmentMetric("steps", "sum"),)
        self._seed = np.zeros(count, np.int64)
        self._episode = np.zeros(count, np.int64)
        self._step = np.zeros(count, np.int64)
        self._length = np.zeros(count, np.int64)

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Begin episode 0 of `seeds` in the environments `rows`."""
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._seed[row] = seed
            self._begin(row, 0)
            self._write(row, 0, columns)

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Count one step of every environment, or begin the next episode of one that was final."""
        for row, action in enumerate(actions.tolist()):
            if self._step[row] == self._length[row]:
                self._begin(row, int(self._episode[row]) + 1)
                self._write(row, 0, columns)
            else:
                self._step[row] += 1
                self._write(row, action, columns)

    def close(self) -> None:
        """Free nothing."""

    def _begin(self, row: int, episode: int) -> None:
        self._episode[row], self._step[row] = episode, 0
        self._length[row] = episode_steps(int(self._seed[row]), episode)

    def _write(self, row: int, action: int, columns: StepColumns) -> None:
        episode, step = int(self._episode[row]), int(self._step[row])
        flags = FIRST if step == 0 else np.uint8(0)
        if step == self._length[row]:
            flags = TRUNCATED if episode % 2 else TERMINATED
        columns.flags[row] = flags
        columns.reward[row] = 0.0 if step == 0 else float(step)
        columns.metrics[row] = 0.0 if step == 0 else 1.0
        columns.observation[0][row] = (self._seed[row], episode, step, action)
