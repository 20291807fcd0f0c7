"""Catch: a ball falls through a grid, a paddle at the bottom must be below it (Mnih et al. 2014, arXiv:1406.6247)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Catch(gymnasium.Env[np.ndarray, np.int64]):
    """Reward 1 for a caught ball and -1 for a missed one, at the last of ``rows - 1`` steps."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, rows: int = 10, columns: int = 5) -> None:
        """Lay out a grid of `rows` times `columns`."""
        self._shape = (rows, columns)
        self.observation_space = gymnasium.spaces.Box(0, 1, (rows, columns), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)  # left, stay, right
        self._row = self._ball = self._paddle = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Drop a ball from a random column, with the paddle in the middle."""
        super().reset(seed=seed, options=options)
        self._row, self._ball = 0, int(self.np_random.integers(self._shape[1]))
        self._paddle = self._shape[1] // 2
        return self._board(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the paddle by one column and let the ball fall by one row."""
        self._paddle = min(max(self._paddle + int(action) - 1, 0), self._shape[1] - 1)
        self._row += 1
        over = self._row == self._shape[0] - 1
        reward = (1.0 if self._ball == self._paddle else -1.0) if over else 0.0
        return self._board(), reward, over, False, {}

    def _board(self) -> np.ndarray:
        board = np.zeros(self._shape, np.float32)
        board[self._row, self._ball] = 1
        board[-1, self._paddle] = 1
        return board


def make(**options: Any) -> Catch:
    """Return a `Catch`; what ``environment.name: aioseed_gymnasium.catch:make`` names."""
    return Catch(**options)
