"""Step single environments one after another as one group: for plugins whose engine knows no groups of its own.

A plugin writes a `SingleEnvironment`; resets after final rows (NEXT_STEP), rebuilds of environments that fail and the
checks of what they return are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from aioseed.errors import EnvironmentFailed
from aioseed.rebuilds import NotFiniteError, Rebuilds, close_quietly
from aioseed.specs import spec_leaves
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec, StepColumns

Leaves = tuple[np.ndarray, ...]
"""One observation, its arrays in the order of `aioseed.specs.flatten`, with the dtypes and shapes of the spec."""


class Outcome(NamedTuple):
    """Hold what one step of one environment gave."""

    observation: Leaves
    reward: float
    terminated: bool
    truncated: bool  # ignored where terminated
    metrics: tuple[float, ...] = ()  # in the order of the group's metrics


class SingleEnvironment(Protocol):
    """Be one environment. Thread: one, from construction to `close`."""

    def reset(self, seed: int | None) -> Leaves:
        """Begin an episode. A seed begins the stream of random numbers anew, None goes on with it."""

    def step(self, action: np.ndarray) -> Outcome:
        """Take one action, of the action's shape, starting at 0 and read-only. Never called after a final outcome."""

    def close(self) -> None:
        """Free what it holds. Idempotent: it is called again where no new one could be built."""


_MOST = float(np.finfo(np.float32).max)
_ARRAYS = (np.ndarray, np.generic)


class SequentialEnvironments:
    """Step E single environments as one `aioseed.types.BatchEnvironment`.

    An environment that raises or returns a number that is not finite is built anew a bounded number of times; its row
    then carries FIRST.

    Args:
        build: Makes one environment.
        count: E.
        name: Names the environments in messages.
        spec: What each of them observes and takes.
        metrics: What each of them reports beside the reward.
        max_rebuilds: How many failures of one environment are mended.

    Raises:
        Exception: What `build` raises.
    """

    def __init__(
        self,
        build: Callable[[], SingleEnvironment],
        count: int,
        name: str,
        spec: EnvironmentSpec,
        metrics: tuple[EnvironmentMetric, ...] = (),
        *,
        max_rebuilds: int = 3,
    ) -> None:
        self._build = build
        self._spec = spec
        self._metrics = metrics
        self._labels = [f"environment {row} ({name})" for row in range(count)]
        self._leaves = spec_leaves(spec.observation)
        self._rebuilds = [Rebuilds(label, max_rebuilds) for label in self._labels]
        self._seeds: list[int | None] = [None] * count
        self._due = [True] * count  # rows whose next step is a reset
        self._envs: list[SingleEnvironment] = []
        self._open = True
        try:
            self._envs.extend(build() for _ in range(count))
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> EnvironmentSpec:
        """Return the specs of one environment."""
        return self._spec

    @property
    def metrics(self) -> tuple[EnvironmentMetric, ...]:
        """Return the metrics in the order of their columns."""
        return self._metrics

    @property
    def count(self) -> int:
        """Return E."""
        return len(self._labels)

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Reset the environments `rows`, one seed each, and write their FIRST rows only.

        Raises:
            EnvironmentFailed: An environment failed too often, or its observation is not what its spec says.
        """
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._seeds[row] = int(seed)
            self._begin(row, int(seed), columns)

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Step every environment with its row of `actions` and write every row.

        Raises:
            EnvironmentFailed: An environment failed too often, or an observation is not what its spec says.
        """
        for row, env in enumerate(self._envs):
            if self._due[row]:
                self._begin(row, None, columns)
                continue
            try:
                outcome = env.step(actions[row])
                _check_numbers(outcome)
                _check_finite(outcome.observation)
            except Exception as error:
                self._rebuild(row, error, columns)
                continue
            self._write(row, outcome, columns)

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self._open:
            self._open = False
            for env, label in zip(self._envs, self._labels, strict=False):
                close_quietly(env, label)

    def _begin(self, row: int, seed: int | None, columns: StepColumns) -> None:
        """Reset one environment and write its FIRST row."""
        try:
            observation = self._envs[row].reset(seed)
            _check_finite(observation)
        except Exception as error:
            self._rebuild(row, error, columns)
            return
        self._write_first(row, observation, columns)

    def _rebuild(self, row: int, error: Exception, columns: StepColumns) -> None:
        """Replace an environment that failed and write the FIRST row of the new one."""
        while True:
            self._rebuilds[row].spend(error)
            close_quietly(self._envs[row], self._labels[row])
            try:
                self._envs[row] = self._build()
                observation = self._envs[row].reset(self._rebuilds[row].seed_after(self._seeds[row]))
                _check_finite(observation)
            except Exception as again:
                error = again
                continue
            self._write_first(row, observation, columns)
            return

    def _write_first(self, row: int, observation: Leaves, columns: StepColumns) -> None:
        self._due[row] = False
        self._write_observation(row, observation, columns)
        columns.flags[row] = FIRST
        columns.reward[row] = 0.0
        columns.metrics[row] = 0.0

    def _write(self, row: int, outcome: Outcome, columns: StepColumns) -> None:
        if len(outcome.metrics) != len(self._metrics):
            # NumPy would spread one number over all metrics.
            raise EnvironmentFailed(
                f"{self._labels[row]} returned {len(outcome.metrics)} metrics where {len(self._metrics)} are declared"
            )
        self._due[row] = outcome.terminated or outcome.truncated
        self._write_observation(row, outcome.observation, columns)
        columns.flags[row] = TERMINATED if outcome.terminated else TRUNCATED if outcome.truncated else 0
        columns.reward[row] = outcome.reward
        columns.metrics[row] = outcome.metrics

    def _write_observation(self, row: int, observation: Leaves, columns: StepColumns) -> None:
        if not isinstance(observation, tuple) or len(observation) != len(self._leaves):
            given = f"a tuple of {len(observation)}" if isinstance(observation, tuple) else _name_of(observation)
            raise EnvironmentFailed(
                f"{self._labels[row]} returned a wrong observation: {given} where a tuple of arrays is expected, one "
                f"for each leaf of the spec, here {len(self._leaves)}"
            )
        for leaf, value, column in zip(self._leaves, observation, columns.observation, strict=True):
            if not isinstance(value, _ARRAYS) or value.shape != leaf.shape or value.dtype != leaf.numpy_dtype:
                raise EnvironmentFailed(
                    f"{self._labels[row]} returned a wrong observation: {_name_of(value)} where "
                    f"{leaf.dtype}{list(leaf.shape)} is expected"
                )
            column[row] = value


def _name_of(value: object) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, _ARRAYS) else type(value).__name__


def _check_numbers(outcome: Outcome) -> None:
    """Raise an error unless reward and metrics are numbers and finite as float32, as which they travel."""
    for place, number in enumerate((outcome.reward, *outcome.metrics)):
        what = "a metric" if place else "a reward"
        if not isinstance(number, float | int | np.number) and (np.ndim(number) or not hasattr(number, "__float__")):
            raise TypeError(f"it returned {what} that is not one number: {number!r}"[:200])
        if not -_MOST <= number <= _MOST:
            raise NotFiniteError(what)


def _check_finite(observation: Leaves) -> None:
    """Raise NotFiniteError unless all of an observation is finite; what is no array is left to the writing."""
    for leaf in observation:
        if isinstance(leaf, _ARRAYS) and leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            raise NotFiniteError("an observation")
