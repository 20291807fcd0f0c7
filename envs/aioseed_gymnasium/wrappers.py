"""Wrappers by name: ours, those of Gymnasium, and any class as ``package.module:Class``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import vector as vector_wrappers

from aioseed.errors import ConfigError, SpaceError
from aioseed.lookup import did_you_mean, import_attribute, is_reference
from aioseed_gymnasium.options import OPTIONS_PATH, WrapperOptions

Wrapper: TypeAlias = Callable[..., object]
"""Takes an environment (or a vector environment) and keyword arguments, gives one."""


class HideVelocities(gymnasium.ObservationWrapper):
    """Keep only some numbers of a flat observation, so that the rest must be remembered.

    Args:
        env: An environment with a one-dimensional Box.
        keep: Indices that stay; by default CartPole's position and angle.

    Raises:
        SpaceError: The observation is no one-dimensional Box, or has no such index.
    """

    def __init__(self, env: gymnasium.Env[object, object], keep: Sequence[int] = (0, 2)) -> None:
        super().__init__(env)
        self._keep = list(keep)
        self.observation_space = _kept(env.observation_space, self._keep)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the numbers that stay."""
        return observation[self._keep]


class HideVelocitiesVector(gymnasium.vector.VectorObservationWrapper):
    """Do for a vector environment what `HideVelocities` does for one environment."""

    def __init__(self, env: gymnasium.vector.VectorEnv, keep: Sequence[int] = (0, 2)) -> None:
        super().__init__(env)
        self._keep = list(keep)
        self.single_observation_space = _kept(env.single_observation_space, self._keep)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, env.num_envs)

    def observations(self, observations: np.ndarray) -> np.ndarray:
        """Return the numbers that stay, of every environment."""
        return observations[:, self._keep]


_OURS: dict[str, tuple[Wrapper, Wrapper]] = {"hide_velocities": (HideVelocities, HideVelocitiesVector)}


def wrap(env: object, wrappers: Sequence[tuple[WrapperOptions, Wrapper]]) -> object:
    """Return `env` with the wrappers around it, the first one innermost."""
    for options, wrapper in wrappers:
        env = wrapper(env, **options.kwargs)
    return env


def find_wrappers(options: Sequence[WrapperOptions], vectorized: bool) -> list[tuple[WrapperOptions, Wrapper]]:
    """Return each wrapper with its options.

    Raises:
        ConfigError: No such wrapper, or it does not take these arguments.
        PluginError: The module of a ``package.module:Class`` cannot be imported.
    """
    found: list[tuple[WrapperOptions, Wrapper]] = []
    for i, option in enumerate(options):
        path = f"{OPTIONS_PATH}.wrappers.{i}"
        wrapper = _find(option.name, vectorized, f"{path}.name")
        try:
            inspect.signature(wrapper).bind(None, **option.kwargs)
        except TypeError as error:
            message = f"{path}.kwargs: {option.name} does not take these arguments: {error}"
            raise ConfigError(message, path=f"{path}.kwargs", value=str(option.kwargs)) from error
        found.append((option, wrapper))
    return found


def _find(name: str, vectorized: bool, path: str) -> Wrapper:
    if name in _OURS:
        return _OURS[name][vectorized]
    if is_reference(name):
        return cast("Wrapper", import_attribute(name, group="aioseed.envs"))
    module = vector_wrappers if vectorized else gymnasium.wrappers
    known = [known for known in dir(module) if isinstance(getattr(module, known), type)]
    if name not in known:
        where = "gymnasium.wrappers.vector" if vectorized else "gymnasium.wrappers"
        near = did_you_mean(name, [*known, *_OURS])
        expected = f"hide_velocities, a class of {where}, or package.module:Class"
        raise ConfigError(f'{path} is "{name}"{near}: expected {expected}', path=path, value=name, expected=expected)
    return cast("Wrapper", getattr(module, name))


def _kept(space: spaces.Space[object], keep: list[int]) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not all(0 <= i < space.shape[0] for i in keep):
        raise SpaceError(
            f"hide_velocities keeps the numbers {keep} of a one-dimensional Box, this observation is {space}"
        )
    return spaces.Box(space.low[keep], space.high[keep], dtype=space.dtype.type)
