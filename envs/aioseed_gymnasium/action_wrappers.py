"""Wrappers that change how an action is given: a Box rescaled to [-1, 1] or as some values, a Discrete with fewer ones.

Each comes for one environment and for a vector environment, and takes actions ``[..., *shape]``: what it does is one
pure function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from aioseed.errors import SpaceError

Spacing: TypeAlias = Literal["lin", "log"]


class _Change(NamedTuple):
    space: spaces.Space[Any]
    """What an agent chooses from."""
    back: Callable[[np.ndarray], np.ndarray]
    """Makes actions of the environment of actions of `space`."""


class ChangedActions(gymnasium.ActionWrapper):
    """Give one environment another action space."""

    def __init__(self, env: gymnasium.Env[Any, Any], change: _Change) -> None:
        super().__init__(env)
        self.action_space = change.space
        self._back = change.back

    def action(self, action: np.ndarray) -> np.ndarray:
        """Return the action as the environment wants it."""
        return self._back(action)


class ChangedActionsVector(gymnasium.vector.VectorActionWrapper):
    """Do for a vector environment what `ChangedActions` does for one environment."""

    def __init__(self, env: gymnasium.vector.VectorEnv, change: _Change) -> None:
        super().__init__(env)
        self.single_action_space = change.space
        self.action_space = gymnasium.vector.utils.batch_space(change.space, env.num_envs)
        self._back = change.back

    def actions(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions as the environment wants them."""
        return self._back(actions)


def rescale_actions(env: gymnasium.Env[Any, Any]) -> ChangedActions:
    """Let every element of a Box action lie in [-1, 1]; what lies outside is clipped.

    Raises:
        SpaceError: The action is no Box of real numbers with finite bounds.
    """
    return ChangedActions(env, _rescaled(env.action_space, "rescale_actions"))


def rescale_actions_vector(env: gymnasium.vector.VectorEnv) -> ChangedActionsVector:
    """Do for a vector environment what `rescale_actions` does for one environment."""
    return ChangedActionsVector(env, _rescaled(env.single_action_space, "rescale_actions"))


def discretize_actions(
    env: gymnasium.Env[Any, Any], choices: int = 11, spacing: Spacing = "lin", ratio: float = 30.0
) -> ChangedActions:
    """Let an agent choose one of some values for each element of a Box action (a MultiDiscrete).

    Args:
        env: An environment whose action is a Box of real numbers with finite bounds.
        choices: Number of values of each element, at least 2. The lowest is the lower bound, the highest the upper.
        spacing: ``lin`` spaces them evenly. ``log`` has the middle of the bounds and, to both sides of it, values whose
            distances from it grow by equal factors; `choices` is then odd.
        ratio: For ``log``: the largest of these distances divided by the smallest, above 1.

    Raises:
        SpaceError: The action is another, or these values do not exist.
    """
    return ChangedActions(env, _discrete(env.action_space, choices, spacing, ratio))


def discretize_actions_vector(
    env: gymnasium.vector.VectorEnv, choices: int = 11, spacing: Spacing = "lin", ratio: float = 30.0
) -> ChangedActionsVector:
    """Do for a vector environment what `discretize_actions` does for one environment."""
    return ChangedActionsVector(env, _discrete(env.single_action_space, choices, spacing, ratio))


def keep_actions(env: gymnasium.Env[Any, Any], keep: Sequence[int]) -> ChangedActions:
    """Let an agent choose among some of the actions of a Discrete only; the others are never taken.

    Args:
        env: An environment whose action is a Discrete.
        keep: The actions that stay, each once. Action k of the agent is ``keep[k]`` of the environment.

    Raises:
        SpaceError: The action is no Discrete, or has no such actions.
    """
    return ChangedActions(env, _kept(env.action_space, keep))


def keep_actions_vector(env: gymnasium.vector.VectorEnv, keep: Sequence[int]) -> ChangedActionsVector:
    """Do for a vector environment what `keep_actions` does for one environment."""
    return ChangedActionsVector(env, _kept(env.single_action_space, keep))


def _rescaled(space: spaces.Space[Any], name: str) -> _Change:
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise SpaceError(f"{name} takes a Box of real numbers, this action is {space}")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not np.isfinite([low, high]).all():
        raise SpaceError(f"{name} needs finite bounds, this action is {space}: put a wrapper inside that bounds it")
    center, half = low / 2 + high / 2, high / 2 - low / 2

    def back(actions: np.ndarray) -> np.ndarray:
        # Rounding must not lead outside of the bounds, which some environments check.
        given: np.ndarray = np.clip(center + half * np.clip(actions, -1, 1), low, high).astype(space.dtype)
        return given

    return _Change(spaces.Box(-1, 1, space.shape, np.float32), back)


def _discrete(space: spaces.Space[Any], choices: int, spacing: Spacing, ratio: float) -> _Change:
    values = _values(choices, spacing, ratio)
    rescaled = _rescaled(space, "discretize_actions")
    sizes = np.full(rescaled.space.shape or (), choices)
    return _Change(spaces.MultiDiscrete(sizes), lambda actions: rescaled.back(values[actions]))


def _kept(space: spaces.Space[Any], keep: Sequence[int]) -> _Change:
    if not isinstance(space, spaces.Discrete):
        raise SpaceError(f"keep_actions takes a Discrete action, this one is {space}")
    if not keep or len(set(keep)) < len(keep) or not all(action in space for action in keep):
        raise SpaceError(f"keep_actions needs different actions of {space}, not {list(keep)}")
    kept = np.array(keep, space.dtype)
    return _Change(spaces.Discrete(len(kept)), lambda actions: kept[actions])


def _values(choices: int, spacing: Spacing, ratio: float) -> np.ndarray:
    """Return float64[choices], ascending from -1 to 1."""
    if spacing == "lin":
        if choices < 2:
            raise SpaceError(f"discretize_actions needs at least 2 choices, not {choices}")
        return np.linspace(-1, 1, choices)
    if spacing != "log":
        raise SpaceError(f'the spacing of discretize_actions is "lin" or "log", not {spacing!r}')
    if choices < 3 or choices % 2 == 0 or not ratio > 1:
        raise SpaceError(
            f"discretize_actions with spacing log needs an odd number of choices from 3 on and a ratio above 1, "
            f"not {choices} and {ratio}"
        )
    above = np.exp(np.linspace(-math.log(ratio), 0, choices // 2)) if choices > 3 else np.ones(1)
    return np.concatenate([-above[::-1], [0], above])
