"""CartPole that takes its time: many sessions on few cores."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium

STEP_S = float(os.environ.get("PACED_STEP_S", "0.05"))


class Paced(gymnasium.Wrapper):
    def step(self, action: Any) -> Any:
        time.sleep(STEP_S)
        return self.env.step(action)


def make(**options: Any) -> gymnasium.Env:
    return Paced(gymnasium.make("CartPole-v1", **options))
