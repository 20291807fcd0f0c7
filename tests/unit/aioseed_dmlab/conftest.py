"""A stand-in for deepmind_lab that keeps its documented interface, refusals included.

As docs/users/python_api.md of DeepMind Lab has it: ``Lab(level, observations, config, renderer, level_cache)`` whose
config holds texts only; nothing works before `reset`; actions are int32[7] within their bounds; `step` returns the sum
of rewards and stops at the end of the episode; after it `observations` raises.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

BOUNDS = np.array([(-512, 512), (-512, 512), (-1, 1), (-1, 1), (0, 1), (0, 1), (0, 1)])
EPISODE_FRAMES = 10


class Lab:
    """Move along a line: reward 1 for each frame forward, -1 for each backward."""

    made: list[Lab] = []  # noqa: RUF012 - what a test looks at

    def __init__(self, level, observations, config=None, renderer="software", level_cache=None, temp_folder=""):
        config = config or {}
        if not all(isinstance(text, str) for item in config.items() for text in item):
            raise TypeError("config must be a dict of str to str")
        if observations != ["RGB_INTERLEAVED"]:
            raise ValueError(f"unknown observations {observations}")
        self.level, self.config, self.renderer, self.level_cache = level, config, renderer, level_cache
        self.actions: list[tuple[list[int], int]] = []
        self.seeds: list[int] = []
        self.frame, self.status = 0, "uninitialised"
        self._picture = np.zeros((int(config["height"]), int(config["width"]), 3), np.uint8)
        Lab.made.append(self)

    def reset(self, episode=-1, seed=None):
        if self.status == "closed":
            raise RuntimeError("the environment is closed")
        self.seeds.append(seed)
        self.frame, self.status = 0, "running"
        return True

    def is_running(self):
        return self.status == "running"

    def observations(self):
        if not self.is_running():
            raise RuntimeError("Environment in wrong status for call to observations()")
        self._picture[:] = (self.frame + (self.seeds[-1] or 0)) % 256
        return {"RGB_INTERLEAVED": self._picture}

    def step(self, action, num_steps=1):
        if not self.is_running():
            raise RuntimeError("Environment in wrong status to advance.")
        if action.dtype != np.intc or action.shape != (7,):
            raise ValueError(f"action must have 7 elements of {np.intc}")
        if ((action < BOUNDS[:, 0]) | (action > BOUNDS[:, 1])).any():
            raise ValueError("action out of bounds")
        self.actions.append((action.tolist(), num_steps))
        frames = min(num_steps, EPISODE_FRAMES - self.frame)
        self.frame += frames
        if self.frame == EPISODE_FRAMES:
            self.status = "terminated"
        return float(frames * action[3])

    def close(self):
        self.status = "closed"


@pytest.fixture
def lab(monkeypatch):
    """Install the stand-in as the module ``deepmind_lab``."""
    module = types.ModuleType("deepmind_lab")
    module.Lab = Lab
    monkeypatch.setattr(Lab, "made", [])
    monkeypatch.setitem(sys.modules, "deepmind_lab", module)
    return Lab
