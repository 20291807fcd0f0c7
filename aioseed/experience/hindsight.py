"""Hindsight replay (Andrychowicz et al. 2017): what was reached later is taken for what was wanted (strategy `future`).

A window of stored rows is cut to an unroll, and the wanted goal of each piece of an episode in it may be replaced by
one that the same episode reached afterwards within the window. All rows of a piece get the same goal, so that no
transition leads from one goal to another, and no goal is taken over an episode's border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, cast

import numpy as np

from aioseed.errors import ConfigError
from aioseed.experience.replay.config import HindsightConfig
from aioseed.lookup import did_you_mean, import_attribute
from aioseed.specs import ArraySpec, ObservationSpec, spec_leaves
from aioseed.types import FIRST, UnrollColumns, UnrollLayout

_PATH = "replay.hindsight"

GoalReward: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(achieved [N, *goal], desired [N, *goal]) -> float32[N]: the part of a reward that depends on the goal."""


class GoalLeaves(NamedTuple):
    """Say which leaves of an observation are goals, as indices in the order of `aioseed.specs.flatten`."""

    achieved: int
    desired: int


class Hindsight:
    """Make unrolls with hindsight goals out of stored windows, as a configuration says. Thread: training."""

    def __init__(self, config: HindsightConfig, observation: ObservationSpec, layout: UnrollLayout) -> None:
        """Look up goals and reward.

        Args:
            config: The section ``replay.hindsight``.
            observation: Has the goals as keys.
            layout: Shape of the unrolls that are learned from.

        Raises:
            ConfigError: The observation has no such goals, or the window is too short for an unroll, or longer than one
                where there is a recurrent state.
            PluginError: The reward function cannot be imported.
        """
        _check_window(config, layout)
        self._config = config
        self._goals = _goal_leaves(config, observation)
        reward = import_attribute(config.reward, group="aioseed.envs")
        if not callable(reward):
            raise ConfigError(f"{_PATH}.reward: {config.reward} is no function", path=f"{_PATH}.reward")
        self._reward = cast("GoalReward", reward)
        self._steps = layout.rows - 1

    def __call__(self, window: UnrollColumns, random: np.random.Generator) -> UnrollColumns:
        """Return one unroll out of each window; the window is not changed."""
        rows, batch = window.flags.shape
        starts = random.integers(0, rows - self._steps, batch)
        return relabelled(window, starts, self._steps, self._goals, self._reward, self._config.probability, random)


def relabelled(
    window: UnrollColumns,
    starts: np.ndarray,
    steps: int,
    goals: GoalLeaves,
    goal_reward: GoalReward,
    probability: float,
    random: np.random.Generator,
) -> UnrollColumns:
    """Return unrolls cut out of a window, with hindsight goals and the rewards that they would have brought.

    A reward becomes ``reward + goal_reward(achieved, new) - goal_reward(achieved, old)``: what does not depend on the
    goal stays. Flags stay too: an environment that terminates where a goal is reached is not made for hindsight.

    Args:
        window: W+1 rows of B unrolls; not changed.
        starts: int[B], the row of the window at which each unroll begins, at most ``W - steps``.
        steps: T, transitions of an unroll.
        goals: Where the goals are in an observation.
        goal_reward: As the environment computes it.
        probability: Share of episode pieces that get another goal.
        random: Where the choices come from.

    Raises:
        ValueError: An unroll reaches beyond the window, or would begin inside it with a recurrent state, which is
            stored for its first row only.
    """
    rows, batch = window.flags.shape
    if np.any((starts < 0) | (starts + steps >= rows)):
        raise ValueError(f"an unroll of {steps} steps does not fit into {rows} rows from {starts.max()} on")
    if window.initial_state and np.any(starts != 0):
        raise ValueError("the recurrent state is stored for the first row of a window, and an unroll begins later")
    chosen, columns = starts[None, :] + np.arange(steps + 1)[:, None], np.arange(batch)[None, :]

    def cut(column: np.ndarray) -> np.ndarray:
        return column[chosen, columns]

    first = (window.flags & FIRST) != 0
    # Rows up to which the episode goes on: in the window, and in the unroll.
    end, piece_end = cut(_last_rows(first)), _last_rows(cut(first))
    last = np.take_along_axis(chosen, piece_end, axis=0)
    drawn = np.take_along_axis(random.random((2, steps + 1, batch)), piece_end[None], axis=1)
    substituted = drawn[0] < probability
    goal_row = last + (drawn[1] * (end - last + 1)).astype(last.dtype)

    achieved, desired = (window.observation[leaf] for leaf in goals)
    old, reached = cut(desired), cut(achieved)
    wide = substituted.reshape(*substituted.shape, *(1 for _ in desired.shape[2:]))
    new = np.where(wide, achieved[goal_row, columns], old).astype(desired.dtype)
    observation = [cut(leaf) for leaf in window.observation]
    observation[goals.desired] = new
    changed = substituted & ~cut(first)
    reward = cut(window.reward)
    difference = goal_reward(reached[changed], new[changed]) - goal_reward(reached[changed], old[changed])
    reward[changed] += difference.astype(reward.dtype)
    return UnrollColumns(
        observation=tuple(observation),
        reward=reward,
        flags=cut(window.flags),
        previous_action=cut(window.previous_action),
        action=cut(window.action),
        policy_version=cut(window.policy_version),
        extras=tuple(cut(leaf) for leaf in window.extras),
        initial_state=window.initial_state,
        importance=window.importance,
    )


def _last_rows(first: np.ndarray) -> np.ndarray:
    """Return int[R, B], for each row the last row of its episode, given bool[R, B]."""
    rows = len(first)
    last = np.empty(first.shape, np.intp)
    last[-1] = rows - 1
    for row in range(rows - 2, -1, -1):
        last[row] = np.where(first[row + 1], row, last[row + 1])
    return last


def _check_window(config: HindsightConfig, layout: UnrollLayout) -> None:
    window, unroll = config.window_steps, layout.unroll_steps
    if window < unroll:
        problem = f"is {window}, but unrolls of {unroll} steps (experience.unroll_steps) are cut out of it"
    elif window > unroll and (layout.state or layout.overlap_steps):
        problem = f"must be experience.unroll_steps, {unroll}: this agent remembers, and only what is at the beginning"
    else:
        return
    raise ConfigError(f"{_PATH}.window_steps {problem}", path=f"{_PATH}.window_steps", value=str(window))


def _goal_leaves(config: HindsightConfig, observation: ObservationSpec) -> GoalLeaves:
    """Return where the goals are among the leaves of an observation."""
    branches = observation if isinstance(observation, dict) else {}
    places: dict[str, int] = {}
    leaf = 0
    for key in sorted(branches):
        places[key] = leaf
        leaf += len(spec_leaves(branches[key]))
    for option, key in (("achieved", config.achieved), ("desired", config.desired)):
        if key not in branches or not isinstance(branches[key], ArraySpec):
            path, near = f"{_PATH}.{option}", did_you_mean(key, branches)
            raise ConfigError(f'{path}: the observation has no array "{key}"{near}', path=path, value=key)
    if branches[config.achieved] != branches[config.desired]:
        raise ConfigError(f"{_PATH}: achieved and desired goals are of different shape or dtype", path=_PATH)
    return GoalLeaves(places[config.achieved], places[config.desired])
