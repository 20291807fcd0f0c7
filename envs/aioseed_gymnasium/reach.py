"""A sparse task with goals: move a point to a place, and be told only whether it is there.

The smallest relative of Gymnasium-Robotics' FetchReach (Plappert et al. 2018, arXiv:1802.09464): in several dimensions
chance hardly ever gets there, so that without hindsight there is nothing to learn from.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium
import numpy as np

RADIUS = 0.2
"""How near a goal is near enough."""

Observation: TypeAlias = dict[str, Any]
"""Leaves float32[dimensions]."""


def goal_reward(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Return float32[...], 0 where a place is at the goal and -1 elsewhere; what ``replay.hindsight.reward`` names.

    Args:
        achieved: float32[..., dimensions].
        desired: float32[..., dimensions].
    """
    reached = np.linalg.norm(achieved - desired, axis=-1) <= RADIUS
    return np.where(reached, 0, -1).astype(np.float32)


class Reach(gymnasium.Env[Observation, np.ndarray]):
    """Reward -1 for every step that does not end at the goal, for `steps` steps: staying there is what pays."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, dimensions: int = 4, steps: int = 25, speed: float = 0.25) -> None:
        """Make a cube of so many `dimensions`, from -1 to 1, in which a step leads at most `speed` along each."""
        if dimensions < 1 or steps < 1 or not 0 < speed <= 2:
            raise ValueError("there must be a dimension, a step, and a speed above 0 and up to 2")
        place = gymnasium.spaces.Box(-1, 1, (dimensions,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"achieved_goal": place, "desired_goal": place})
        self.action_space = gymnasium.spaces.Box(-1, 1, (dimensions,), np.float32)
        self._steps, self._speed = steps, speed
        self._left = 0
        self._place = self._goal = np.zeros(dimensions, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a place and a goal."""
        super().reset(seed=seed, options=options)
        self._place, self._goal = self.np_random.uniform(-1, 1, (2, len(self._place))).astype(np.float32)
        self._left = self._steps
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move; what would lead out of the cube ends at its border. Time runs out, nothing else ends an episode."""
        moved = self._place + self._speed * np.clip(action, -1, 1)
        self._place = np.clip(moved, -1, 1).astype(np.float32)
        self._left -= 1
        reward = float(goal_reward(self._place, self._goal))
        return self._observation(), reward, False, self._left == 0, {}

    def _observation(self) -> Observation:
        return {"achieved_goal": self._place.copy(), "desired_goal": self._goal.copy()}


def make(**options: Any) -> Reach:
    """Return a `Reach`; what ``environment.name: aioseed_gymnasium.reach:make`` names."""
    return Reach(**options)
