"""Wrappers by name: ours, those of Gymnasium, and any class or function as ``package.module:name``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, cast

import gymnasium
from gymnasium.wrappers import vector as vector_wrappers

from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean, import_attribute, is_reference, signature_of
from aioseed_gymnasium.action_wrappers import (
    discretize_actions,
    discretize_actions_vector,
    keep_actions,
    keep_actions_vector,
    rescale_actions,
    rescale_actions_vector,
)
from aioseed_gymnasium.observation_wrappers import (
    DropMission,
    HideVelocities,
    HideVelocitiesVector,
    OneHotGrid,
    Screen,
)
from aioseed_gymnasium.options import OPTIONS_PATH, WrapperOptions

Wrapper: TypeAlias = Callable[..., object]
"""Takes an environment (or a vector environment) and keyword arguments, gives one."""


class _Named(NamedTuple):
    plain: Wrapper
    vector: Wrapper | None
    """None where no environment of that kind has a vector implementation."""


_OURS: dict[str, _Named] = {
    "discretize_actions": _Named(discretize_actions, discretize_actions_vector),
    "drop_mission": _Named(DropMission, None),
    "hide_velocities": _Named(HideVelocities, HideVelocitiesVector),
    "keep_actions": _Named(keep_actions, keep_actions_vector),
    "one_hot_grid": _Named(OneHotGrid, None),
    "rescale_actions": _Named(rescale_actions, rescale_actions_vector),
    "screen": _Named(Screen, None),
}


def wrap(env: object, wrappers: Sequence[tuple[WrapperOptions, Wrapper]]) -> object:
    """Return `env` with the wrappers around it, the first one innermost."""
    for options, wrapper in wrappers:
        env = wrapper(env, **options.kwargs)
    return env


def find_wrappers(options: Sequence[WrapperOptions], vectorized: bool) -> list[tuple[WrapperOptions, Wrapper]]:
    """Return each wrapper with its options.

    Raises:
        ConfigError: No such wrapper, or it does not take these arguments.
        PluginError: The module of a ``package.module:name`` cannot be imported.
    """
    found: list[tuple[WrapperOptions, Wrapper]] = []
    for i, option in enumerate(options):
        path = f"{OPTIONS_PATH}.wrappers.{i}"
        wrapper = _find(option.name, vectorized, f"{path}.name")
        try:
            signature_of(wrapper).bind(None, **option.kwargs)
        except TypeError as error:
            message = f"{path}.kwargs: {option.name} does not take these arguments: {error}"
            raise ConfigError(message, path=f"{path}.kwargs", value=str(option.kwargs)) from error
        found.append((option, wrapper))
    return found


def _find(name: str, vectorized: bool, path: str) -> Wrapper:
    if name in _OURS:
        wrapper = _OURS[name].vector if vectorized else _OURS[name].plain
        if wrapper is None:
            message = f"{path} is {name}, which wraps single environments: set {OPTIONS_PATH}.vectorized=false"
            raise ConfigError(message, path=path, value=name)
        return wrapper
    if is_reference(name):
        return _own(name, path)
    module = vector_wrappers if vectorized else gymnasium.wrappers
    known = [known for known in dir(module) if isinstance(getattr(module, known), type)]
    if name not in known:
        where = "gymnasium.wrappers.vector" if vectorized else "gymnasium.wrappers"
        near = did_you_mean(name, [*known, *_OURS])
        expected = f"one of {', '.join(_OURS)}, a class of {where}, or package.module:name"
        raise ConfigError(f'{path} is "{name}"{near}: expected {expected}', path=path, value=name, expected=expected)
    return _with_tuples(cast("Wrapper", getattr(module, name)))


def _with_tuples(wrapper: Wrapper) -> Wrapper:
    """Return a wrapper of Gymnasium's that takes the lists of a configuration, which has no tuples.

    Several of those refuse a list where they expect a tuple, `ResizeObservation` among them.
    """

    @functools.wraps(wrapper)
    def wrapped(env: object, **kwargs: object) -> object:
        return wrapper(env, **{name: _tuples_in(value) for name, value in kwargs.items()})

    return wrapped


def _tuples_in(value: object) -> object:
    return tuple(_tuples_in(part) for part in value) if isinstance(value, list) else value


def _own(name: str, path: str) -> Wrapper:
    wrapper = import_attribute(name, group="aioseed.envs")
    if not callable(wrapper):
        message = f"{path} is {name}, which is no class and no function that wraps an environment"
        raise ConfigError(message, path=path, value=name)
    return wrapper
