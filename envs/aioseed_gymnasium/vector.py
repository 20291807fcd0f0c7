"""Environments with an own vector implementation: one object steps all E rows with NumPy or in its own processes.

Only NEXT_STEP autoreset is taken: it is what the wire carries. SAME_STEP gives final and first observations in one
step, and DISABLED leaves resetting to the caller; both would need the other rows to wait for a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import gymnasium
import numpy as np

from aioseed.errors import ConfigError, EnvironmentFailed
from aioseed.lookup import sentence_of
from aioseed.rebuilds import NotFiniteError, Rebuilds, close_quietly
from aioseed.specs import check_servable
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed_gymnasium.actions import ActionCodec
from aioseed_gymnasium.options import OPTIONS_PATH, GymnasiumOptions
from aioseed_gymnasium.rows import Rows
from aioseed_gymnasium.spaces import read_observation_space

VectorEnv: TypeAlias = "gymnasium.vector.VectorEnv[object, np.ndarray, np.ndarray]"


class VectorEnvironment:
    """Step a Gymnasium vector environment as one `aioseed.types.BatchEnvironment`.

    A vector environment of an own kind can only be reset as a whole. When some of its rows are to be reset, the others
    begin a new episode too: their next row is FIRST, and holds the observation after that episode's first step.
    `gymnasium.vector.SyncVectorEnv` and ``AsyncVectorEnv`` reset single rows.

    Args:
        build: Makes the vector environment.
        count: E.
        name: Names it in messages.
        options: How observations are cast, how often it is rebuilt when it fails.

    Raises:
        ConfigError: It resets in another mode than NEXT_STEP, or has another number of environments.
        SpaceError: A space cannot be sent.
        Exception: What `build` raises.
    """

    def __init__(self, build: Callable[[], VectorEnv], count: int, name: str, options: GymnasiumOptions) -> None:
        self._build = build
        self._label = f"the vector environment {name}"
        self._count = count
        self._env = build()
        self._open = True
        try:
            _check_mode(self._env, count, name)
            observation, self._leaves = read_observation_space(self._env.single_observation_space, options.dtype_sent)
            self._actions = ActionCodec(self._env.single_action_space)
            self._spec = EnvironmentSpec(observation, self._actions.spec)
            check_servable(*self._spec)
        except BaseException:
            self.close()
            raise
        self._resets_rows = _resets_rows(self._env)
        self._all = np.arange(count)
        self._begins = self._all[:0]  # environments whose next row is FIRST
        self._seed: int | None = None
        self._rebuilds = Rebuilds(self._label, options.max_rebuilds)
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
        return self._count

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Reset the environments `rows` and write their FIRST rows only.

        Raises:
            EnvironmentFailed: The environment failed too often, or an observation is not what its space says.
        """
        views = self._views(columns)
        self._seed = _one_seed(seeds)
        try:
            observation = self._reset(rows, seeds)
        except Exception as error:
            observation = self._rebuild(error)
            self._begins = self._all
        # The environment gives all rows, and the columns may show only those that were asked for.
        scratch = Rows(_scratch(columns), self._leaves, self._count)
        self._write(scratch, observation)
        if len(scratch.not_finite()):
            self._write_rebuilt(scratch, NotFiniteError())
            self._begins = self._all
        self._begins = np.setdiff1d(self._begins, rows)
        for leaf, fresh in zip(views.leaves, scratch.leaves, strict=True):
            leaf.rows[rows] = fresh.rows[rows]
        views.reward[rows] = 0.0
        views.flags[rows] = FIRST

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Step every environment with its row of `actions` and write every row.

        Raises:
            EnvironmentFailed: The environment failed too often, or an observation is not what its space says.
        """
        views = self._views(columns)
        try:
            observation, reward, terminated, truncated, _ = self._env.step(self._actions.batch(actions))
        except Exception as error:
            self._write_rebuilt(views, error)
            return
        try:
            self._write_outcome(views, reward, terminated, truncated)
        except (TypeError, ValueError) as error:
            raise EnvironmentFailed(f"{self._label} returned a wrong reward or flag: {sentence_of(error)}") from error
        self._write(views, observation)
        if len(views.not_finite()):
            self._write_rebuilt(views, NotFiniteError())

    def close(self) -> None:
        """Close the environment. Idempotent."""
        if self._open:
            self._open = False
            close_quietly(self._env, self._label)

    def _reset(self, rows: np.ndarray, seeds: Sequence[int]) -> object:
        whole = len(rows) == self._count
        if not self._resets_rows:
            observation, _ = self._env.reset(seed=self._seed)
            self._begins = self._all[:0] if whole else self._all
            return observation
        each: list[int | None] = [None] * self._count
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            each[row] = int(seed)
        mask = np.zeros(self._count, bool)
        mask[rows] = True
        # No mask for the whole: before Gymnasium 1.1 there was none, and a first reset must set everything up.
        # A list of seeds is what these two classes take beyond the interface.
        observation, _ = self._env.reset(seed=cast("int", each), options=None if whole else {"reset_mask": mask})
        return observation

    def _rebuild(self, error: Exception) -> object:
        """Replace the environment that failed and return its first observations."""
        while True:
            self._rebuilds.spend(error)
            close_quietly(self._env, self._label)
            try:
                self._env = self._build()
                observation, _ = self._env.reset(seed=self._rebuilds.seed_after(self._seed))
            except Exception as again:
                error = again
                continue
            return observation

    def _write_rebuilt(self, views: Rows, error: Exception) -> None:
        """Rebuild until the first observations are finite and write FIRST rows."""
        while True:
            self._write(views, self._rebuild(error))
            views.flags.fill(FIRST)
            views.reward.fill(0.0)
            self._begins = self._all[:0]
            if not len(views.not_finite()):
                return
            error = NotFiniteError()

    def _views(self, columns: StepColumns) -> Rows:
        if self._rows is None or self._rows.columns is not columns:
            self._rows = Rows(columns, self._leaves, self._count)
        return self._rows

    def _write_outcome(self, views: Rows, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        flags = views.flags
        flags.fill(0)
        np.copyto(views.reward, reward, casting="same_kind")
        np.copyto(flags, TRUNCATED, where=truncated)
        np.copyto(flags, TERMINATED, where=terminated)
        ended = np.flatnonzero(flags)
        flags[self._begins] = FIRST
        views.reward[self._begins] = 0.0
        self._begins = ended

    def _write(self, views: Rows, observation: object) -> None:
        for leaf in views.leaves:
            try:
                leaf.write_batch(observation)
            except Exception as error:
                raise EnvironmentFailed(f"{self._label} returned a wrong observation: {sentence_of(error)}") from error


def _check_mode(env: VectorEnv, count: int, name: str) -> None:
    if env.num_envs != count:
        raise ConfigError(f"{name} made {env.num_envs} environments where {count} were asked for", path=OPTIONS_PATH)
    # Environments that were written for Gymnasium 1.0 have no such entry, and know only NEXT_STEP.
    mode = (env.metadata or {}).get("autoreset_mode")
    if mode is not None and getattr(mode, "name", mode) != "NEXT_STEP":
        raise ConfigError(
            f"{name} resets in the mode {getattr(mode, 'name', mode)}, and only NEXT_STEP can be sent: "
            f"set {OPTIONS_PATH}.vectorized=false, or make it with autoreset_mode NEXT_STEP",
            path=f"{OPTIONS_PATH}.vectorized",
            value="true",
            expected="false",
        )


def _resets_rows(env: VectorEnv) -> bool:
    return isinstance(env.unwrapped, gymnasium.vector.SyncVectorEnv | gymnasium.vector.AsyncVectorEnv)


def _one_seed(seeds: Sequence[int]) -> int:
    """Return one seed for what takes only one."""
    return int(np.random.SeedSequence([int(seed) for seed in seeds]).generate_state(1, np.uint32)[0] >> 1)


def _scratch(columns: StepColumns) -> StepColumns:
    leaves = tuple(np.empty_like(leaf) for leaf in columns.observation)
    return columns._replace(
        reward=np.zeros_like(columns.reward), flags=np.zeros_like(columns.flags), observation=leaves
    )
