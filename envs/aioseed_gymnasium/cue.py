"""A test of memory: a cue is shown at the first step only and asked for at the last; nothing in between tells it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Cue(gymnasium.Env[np.ndarray, np.int64]):
    """Reward 1 for naming the cue when it is asked for, else 0: without memory the mean return is ``1 / cues``.

    The observation is the cue (one-hot, at the first step only) and a flag that is 1 when the answer is wanted.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, cues: int = 2, delay_steps: int = 20) -> None:
        """Show one of `cues` and ask for it `delay_steps` later."""
        if cues < 2 or delay_steps < 1:
            raise ValueError("a cue is one of at least 2, asked for at least 1 step later")
        self._cues, self._delay_steps = cues, delay_steps
        self.observation_space = gymnasium.spaces.Box(0, 1, (cues + 1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(cues)
        self._cue = self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a cue and show it."""
        super().reset(seed=seed, options=options)
        self._cue, self._step = int(self.np_random.integers(self._cues)), 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Go on; the action counts only when it answers."""
        asked = self._step == self._delay_steps
        self._step += 1
        return self._observation(), float(asked and int(action) == self._cue), asked, False, {}

    def _observation(self) -> np.ndarray:
        seen = np.zeros(self._cues + 1, np.float32)
        if self._step == 0:
            seen[self._cue] = 1
        seen[-1] = self._step == self._delay_steps
        return seen


def make(**options: Any) -> Cue:
    """Return a `Cue`; what ``environment.name: aioseed_gymnasium.cue:make`` names."""
    return Cue(**options)
