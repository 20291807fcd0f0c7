"""Plain Gymnasium environments, one object each, stepped one after the other in columns.

Theory of operation. A row is *due* when its next step is a reset: after a final row (NEXT_STEP autoreset), and before
the first reset. Observations are collected in a list and copied into the columns with one NumPy call a leaf and step,
which also checks shapes and kinds; the loop over the environments does as little as it can, since it runs once a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TypeAlias

import gymnasium
import numpy as np

from aioseed.errors import EnvironmentFailed, SpaceError
from aioseed.lookup import sentence_of
from aioseed.rebuilds import NotFiniteError, Rebuilds, close_quietly
from aioseed.specs import check_servable
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed_gymnasium.actions import ActionCodec
from aioseed_gymnasium.options import GymnasiumOptions
from aioseed_gymnasium.rows import Rows, fault_in, share_memory
from aioseed_gymnasium.spaces import read_observation_space

Env: TypeAlias = "gymnasium.Env[object, object]"

_FIRST, _TERMINATED, _TRUNCATED = int(FIRST), int(TERMINATED), int(TRUNCATED)


class PlainEnvironment:
    """Step E Gymnasium environments as one `aioseed.types.BatchEnvironment`.

    A row that terminates and truncates at once is written as terminated.

    Args:
        build: Makes one environment.
        count: E.
        name: Names the environments in messages.
        options: How observations are cast, how often a failing environment is rebuilt.

    Raises:
        SpaceError: A space cannot be sent, or the environments differ.
        Exception: What `build` raises.
    """

    def __init__(self, build: Callable[[], Env], count: int, name: str, options: GymnasiumOptions) -> None:
        self._build = build
        self._labels = [f"environment {row} ({name})" for row in range(count)]
        self._envs: list[Env] = []
        self._open = True
        try:
            self._envs.extend(build() for _ in range(count))
            space = self._envs[0].observation_space
            observation, self._leaves = read_observation_space(space, options.dtype_sent)
            self._actions = ActionCodec(self._envs[0].action_space)
            self._spec = EnvironmentSpec(observation, self._actions.spec)
            check_servable(*self._spec)
            self._check_alike()
        except BaseException:
            self.close()
            raise
        self._steps = [env.step for env in self._envs]
        self._due = [True] * count
        self._seeds: list[int | None] = [None] * count
        self._rebuilds = [Rebuilds(label, options.max_rebuilds) for label in self._labels]
        # Environments that hand out one and the same array need their observations copied before the next one steps. A
        # first step with all of them shows whether their steps do.
        self._copies = False
        self._unseen = True
        self._rows: Rows | None = None

    @property
    def spec(self) -> EnvironmentSpec:
        """Return the specs of one environment."""
        return self._spec

    @property
    def metrics(self) -> tuple[EnvironmentMetric, ...]:
        """Return the metrics: none."""
        return ()

    @property
    def count(self) -> int:
        """Return E."""
        return len(self._labels)

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Reset the environments `rows`, one seed each, and write their FIRST rows only.

        Raises:
            EnvironmentFailed: An environment failed too often, or its observation is not what its space says.
        """
        views = self._views(columns)
        observations: list[object] = []
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._seeds[row] = int(seed)
            observation = self._begin(row, int(seed))
            observations.append(observation)
            self._write_first(views, row, observation)
        self._copies = self._copies or share_memory(observations)

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Step every environment with its row of `actions` and write every row.

        Raises:
            EnvironmentFailed: An environment failed too often, or an observation is not what its space says.
        """
        views = self._views(columns)
        flags, due, steps, copies = views.flags, self._due, self._steps, self._copies or self._unseen
        shows = self._unseen and not any(due)
        flags.fill(0)
        observations: list[object] = []
        copied: list[object] = []
        rewards: list[object] = []
        for row, action in enumerate(self._actions.each(actions)):
            if due[row]:
                observation, reward = self._begin(row, None), 0.0
                flags[row] = _FIRST
            else:
                try:
                    observation, reward, terminated, truncated, _ = steps[row](action)  # type: ignore[assignment]
                except Exception as error:
                    observation, reward = self._rebuild(row, error), 0.0
                    flags[row] = _FIRST
                else:
                    if terminated or truncated:
                        flags[row] = _TERMINATED if terminated else _TRUNCATED
                        due[row] = True
            if copies:
                copied.append(observation)
                observation = deepcopy(observation)
            observations.append(observation)
            rewards.append(reward)
        if shows:
            self._copies, self._unseen = self._copies or share_memory(copied), False
        self._write(views, observations, rewards)

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self._open:
            self._open = False
            for env, label in zip(self._envs, self._labels, strict=False):
                close_quietly(env, label)

    def _check_alike(self) -> None:
        first = self._envs[0]
        for env, label in zip(self._envs, self._labels, strict=True):
            if env.observation_space != first.observation_space or env.action_space != first.action_space:
                raise SpaceError(
                    f"{label} has other spaces than {self._labels[0]}: a group's environments must be alike"
                )

    def _views(self, columns: StepColumns) -> Rows:
        if self._rows is None or self._rows.columns is not columns:
            self._rows = Rows(columns, self._leaves, self.count)
        return self._rows

    def _begin(self, row: int, seed: int | None) -> object:
        """Reset one environment and return its first observation."""
        try:
            observation, _ = self._envs[row].reset(seed=seed)
        except Exception as error:
            return self._rebuild(row, error)
        self._due[row] = False
        return observation

    def _rebuild(self, row: int, error: Exception) -> object:
        """Replace an environment that failed and return the first observation of the new one."""
        while True:
            self._rebuilds[row].spend(error)
            close_quietly(self._envs[row], self._labels[row])
            try:
                env = self._envs[row] = self._build()  # at once: one that cannot be reset is closed, too
                observation, _ = env.reset(seed=self._rebuilds[row].seed_after(self._seeds[row]))
            except Exception as again:
                error = again
                continue
            self._steps[row], self._due[row] = env.step, False
            return observation

    def _write(self, views: Rows, observations: list[object], rewards: list[object]) -> None:
        try:
            views.reward[:] = rewards
            for leaf in views.leaves:
                leaf.write_each(observations)
        except Exception as error:
            raise self._blame(observations, rewards, error) from error
        for row in views.not_finite().tolist():
            what = "an observation" if np.isfinite(views.reward[row]) else "a reward"
            self._write_first(views, row, self._rebuild(row, NotFiniteError(what)))

    def _write_first(self, views: Rows, row: int, observation: object) -> None:
        """Write one FIRST row; an observation that is not finite costs a rebuild."""
        views.reward[row] = 0.0
        views.flags[row] = _FIRST
        while True:
            fault = fault_in(self._leaves, observation)
            if fault:
                raise EnvironmentFailed(f"{self._labels[row]} returned a wrong observation: {fault}")
            views.write_one(row, observation)
            if views.row_is_finite(row):
                return
            observation = self._rebuild(row, NotFiniteError("an observation"))

    def _blame(self, observations: list[object], rewards: list[object], error: Exception) -> EnvironmentFailed:
        for label, observation, reward in zip(self._labels, observations, rewards, strict=True):
            fault = fault_in(self._leaves, observation)
            if fault:
                return EnvironmentFailed(f"{label} returned a wrong observation: {fault}")
            if np.ndim(reward) or not np.issubdtype(np.asarray(reward).dtype, np.number):  # type: ignore[arg-type]
                return EnvironmentFailed(f"{label} returned a reward that is not one number: {reward!r}"[:300])
        return EnvironmentFailed(f"{self._labels[0]} returned what cannot be sent: {sentence_of(error)}")
