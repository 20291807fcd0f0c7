"""Environments of which a test can predict every number, and columns to write them into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aioseed.specs import spec_leaves, zeros
from aioseed.types import BatchEnvironment, StepColumns


class Ladder(gymnasium.Env):
    """Observe [seed, step, last action]; rewards step/2; terminates after `length` steps, truncates if asked.

    What a test wants to go wrong is done by `faults`: a function of (environment, step) that is called in each step
    (step >= 1) and reset (step 0) and may raise, or return what shall be observed instead.
    """

    metadata: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        length: int = 3,
        truncates: bool = False,
        action_space: gymnasium.Space | None = None,
        faults: Callable[[Ladder, int], Any] = lambda env, step: None,
    ) -> None:
        self.observation_space = spaces.Box(-1e6, 1e6, (3,), np.float32)
        self.action_space = action_space or spaces.Discrete(5)
        self.length, self.truncates, self.faults = length, truncates, faults
        self.seed, self.count, self.closed = -1, 0, 0
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.seed = seed
        self.count = 0
        return self._observe(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        self.count += 1
        ended = self.count >= self.length
        return self._observe(action), self.count / 2, ended and not self.truncates, ended and self.truncates, {}

    def close(self) -> None:
        self.closed += 1

    def _observe(self, action: Any) -> Any:
        instead = self.faults(self, self.count)
        return np.array([self.seed, self.count, np.sum(action)], np.float32) if instead is None else instead


class Constant(gymnasium.Env):
    """Observe always the same element of a space, and keep the actions."""

    def __init__(self, observation_space: gymnasium.Space, observation: Any, action_space: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.observation = observation
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        return self.observation, 0.0, False, False, {}


class Group:
    """Drive a group and its columns."""

    def __init__(self, env: BatchEnvironment, columns: StepColumns | None = None) -> None:
        self.env = env
        self.columns = columns or new_columns(env)

    def reset(self, rows: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None:
        rows = range(self.env.count) if rows is None else rows
        self.env.reset(np.array(rows), [10 + row for row in rows] if seeds is None else seeds, self.columns)

    def step(self, *actions: Any) -> None:
        spec = self.env.spec.action.array
        batch = np.zeros((self.env.count, *spec.shape), spec.dtype)
        if actions:
            batch[...] = actions
        self.env.step(batch, self.columns)

    @property
    def flags(self) -> list[int]:
        return self.columns.flags.tolist()

    @property
    def rewards(self) -> list[float]:
        return self.columns.reward.tolist()

    @property
    def observations(self) -> list[Any]:
        return self.columns.observation[0].tolist()


def new_columns(env: BatchEnvironment) -> StepColumns:
    count = env.count
    return StepColumns(
        slot=np.zeros(count, np.uint32),
        epoch=np.zeros(count, np.uint64),
        sequence=np.zeros(count, np.uint32),
        flags=np.zeros(count, np.uint8),
        reward=np.zeros(count, np.float32),
        metrics=np.zeros((count, 0), np.float32),
        observation=tuple(zeros(leaf, (count,)) for leaf in spec_leaves(env.spec.observation)),
    )


@pytest.fixture
def ladder() -> type[Ladder]:
    return Ladder


@pytest.fixture
def constant() -> type[Constant]:
    return Constant


@pytest.fixture
def group() -> type[Group]:
    return Group


@pytest.fixture
def local_module(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Return a function that puts a Python file beside the user's other files."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    return write


@pytest.fixture
def registered() -> Any:
    """Return a function that registers an environment with Gymnasium for the time of the test."""
    added: list[str] = []

    def register(identifier: str, **entries: Mapping[str, Any]) -> None:
        gymnasium.register(identifier, **entries)
        added.append(identifier)

    yield register
    for identifier in added:
        del gymnasium.registry[identifier]
