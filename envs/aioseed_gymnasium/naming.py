"""Environment names: an id of Gymnasium (``CartPole-v1``, ``package:Space/Name-v0``) or ``package.module:function``."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import gymnasium
from gymnasium.envs.registration import EnvSpec

from aioseed.errors import AioseedError, ConfigError, EnvironmentFailed, PluginError
from aioseed.lookup import did_you_mean, import_attribute, is_reference, sentence_of
from aioseed_gymnasium.adapter import Env
from aioseed_gymnasium.options import OPTIONS_PATH, GymnasiumOptions
from aioseed_gymnasium.vector import VectorEnv
from aioseed_gymnasium.wrappers import find_wrappers, wrap

_NAME_PATH = "environment.name"
_EXTRAS = ("minigrid", "mujoco", "vizdoom")
"""Extras of aioseed, each named like the module that it brings."""


def plain_builder(name: str, options: GymnasiumOptions) -> Callable[[], Env]:
    """Return a function that makes one environment with its wrappers.

    Raises:
        ConfigError: No such environment or wrapper.
        PluginError: A module is missing.
    """
    wrappers = find_wrappers(options.wrappers, vectorized=False)
    make = _own_maker(name, options) if _is_own(name) else _registered_maker(name, options)

    def build() -> Env:
        with _as_our_errors(name, options):
            env = make()
            if not isinstance(env, gymnasium.Env):
                raise ConfigError(_not_gymnasium(name, env), path=_NAME_PATH, value=name)
            return cast("Env", wrap(env, wrappers))

    return build


def vector_builder(name: str, options: GymnasiumOptions, count: int) -> Callable[[], VectorEnv]:
    """Return a function that makes one vector environment of `count` environments with its wrappers.

    Raises:
        ConfigError: No such environment or wrapper, or it has no vector implementation.
        PluginError: A module is missing.
    """
    wrappers = find_wrappers(options.wrappers, vectorized=True)
    kwargs = dict(options.kwargs)
    if options.max_episode_steps is not None:
        kwargs["max_episode_steps"] = options.max_episode_steps
    if _is_own(name):
        function = cast("Callable[..., object]", import_attribute(name, group="aioseed.envs"))
    else:
        function = _registered_vector(name)

    def build() -> VectorEnv:
        with _as_our_errors(name, options):
            env = function(num_envs=count, **kwargs)
            if not isinstance(env, gymnasium.vector.VectorEnv):
                raise ConfigError(
                    f"{name} made a {type(env).__name__} where {OPTIONS_PATH}.vectorized=true expects a VectorEnv",
                    path=f"{OPTIONS_PATH}.vectorized",
                )
            return cast("VectorEnv", wrap(env, wrappers))

    return build


def find_spec(name: str) -> EnvSpec:
    """Return Gymnasium's entry for an id; ``package:`` in front of it imports the package that registers it.

    Raises:
        ConfigError: No such environment; the message offers near names.
        PluginError: The package, or the one that registers the namespace, is missing.
    """
    module, colon, identifier = name.rpartition(":")
    if colon:
        _import_registering(module, name)
    registry: dict[str, EnvSpec] = gymnasium.registry
    if identifier in registry:
        return registry[identifier]
    if module:
        raise ConfigError(_not_registered(module, identifier), path=_NAME_PATH, value=name)
    namespace, slash, _ = identifier.rpartition("/")
    if slash and not any(known.startswith(f"{namespace}/") for known in registry):
        raise PluginError(
            f'no environment of "{namespace}/" is registered: install the package that brings them and put its module '
            f"in front, as in some_package:{identifier}",
            group="aioseed.envs",
            name=name,
        )
    near = did_you_mean(identifier, registry)
    raise ConfigError(
        f'there is no environment "{identifier}"{near or _NO_NEAR_NAME.format(identifier)}',
        path=_NAME_PATH,
        value=name,
        expected="an id that Gymnasium knows, or package.module:function",
    )


_NO_NEAR_NAME = (
    ": where a package registers it, put its module in front, as in some_package:{}; one of your own is "
    "package.module:function"
)
_WRAP_IT = "wrap it in a gymnasium.Env in a function of your own, and name that as package.module:function"


def _is_own(name: str) -> bool:
    """Say whether a name means an object of a module, and no id that looks like one, being without a version."""
    if not is_reference(name):
        return False
    try:
        import_attribute(name, group="aioseed.envs")
    except PluginError:
        if name.rpartition(":")[2] not in gymnasium.registry:
            raise
        return False
    return True


def _not_registered(module: str, identifier: str) -> str:
    """Return what to do where a module was imported and registers no such environment."""
    if identifier in _older_registry():
        return (
            f'the module "{module}" registers "{identifier}" with the older Gym, whose environments have another '
            f"interface: {_WRAP_IT}"
        )
    near = did_you_mean(identifier, gymnasium.registry)
    return (
        f'the module "{module}" was imported and registers no "{identifier}"{near}: another of its modules may, as in '
        f"{module}.envs:{identifier}; else name a function of your own that makes it, as package.module:function"
    )


def _older_registry() -> Container[object]:
    """Return the ids that the older Gym knows, where somebody has imported it."""
    registry: object = getattr(getattr(sys.modules.get("gym"), "envs", None), "registry", None)
    registry = getattr(registry, "env_specs", registry)  # Gym 0.21 keeps them in there
    return registry if isinstance(registry, Mapping) else ()


def _not_gymnasium(name: str, env: object) -> str:
    kind = type(env)
    made = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    said = f"{name} made a {made} where a gymnasium.Env is expected"
    if hasattr(env, "possible_agents"):
        return f"{said}: it is for several agents, and an environment has one here"
    return f"{said}: {_WRAP_IT}" if hasattr(env, "step") and hasattr(env, "reset") else said


def _registered_maker(name: str, options: GymnasiumOptions) -> Callable[[], object]:
    spec = copy.deepcopy(find_spec(name))
    if spec.entry_point is None:
        raise ConfigError(
            f"{name} has only a vector implementation: set {OPTIONS_PATH}.vectorized=true",
            path=f"{OPTIONS_PATH}.vectorized",
            value="false",
            expected="true",
        )
    # The adapter itself resets before it steps, and checks what matters; both wrappers would cost time in every step.
    spec.order_enforce = False
    return lambda: gymnasium.make(
        spec, max_episode_steps=options.max_episode_steps, disable_env_checker=True, **options.kwargs
    )


def _registered_vector(name: str) -> Callable[..., object]:
    spec = find_spec(name)
    if spec.vector_entry_point is None:
        raise ConfigError(
            f"{name} has no vector implementation of its own: leave out {OPTIONS_PATH}.vectorized",
            path=f"{OPTIONS_PATH}.vectorized",
            value="true",
            expected="false",
        )
    return lambda **kwargs: gymnasium.make_vec(spec, vectorization_mode="vector_entry_point", **kwargs)


def _own_maker(name: str, options: GymnasiumOptions) -> Callable[[], object]:
    function = cast("Callable[..., object]", import_attribute(name, group="aioseed.envs"))
    if not callable(function):
        raise ConfigError(f"{name} is no function and no class that makes an environment", path=_NAME_PATH, value=name)

    def make() -> object:
        env = function(**options.kwargs)
        limit = options.max_episode_steps
        if limit is None or not isinstance(env, gymnasium.Env):
            return env
        return gymnasium.wrappers.TimeLimit(env, limit)

    return make


def _import_registering(module: str, name: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        extra = _extra_for(error)
        message = f'the module "{module}" of the environment "{name}" cannot be imported: {error}{_remedy(extra)}'
        raise PluginError(message, group="aioseed.envs", name=name, extra=extra) from error
    except Exception as error:
        message = f'the module "{module}" of the environment "{name}" raised: {sentence_of(error)}'
        raise PluginError(message, group="aioseed.envs", name=name) from error


@contextmanager
def _as_our_errors(name: str, options: GymnasiumOptions) -> Iterator[None]:
    """Turn what an environment raises while it is made into our errors."""
    try:
        yield
    except AioseedError:
        raise
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        extra = _extra_for(error)
        message = f"{name} needs a package that is not installed: {sentence_of(error)}{_remedy(extra)}"
        raise PluginError(message, group="aioseed.envs", name=name, extra=extra) from error
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise EnvironmentFailed(f"{name} could not be made: {sentence_of(error)}") from error
        path = f"{OPTIONS_PATH}.kwargs"
        message = f"{path} is {options.kwargs}: {name} does not take it ({error})"
        raise ConfigError(message, path=path, value=str(options.kwargs)) from error
    except Exception as error:
        raise EnvironmentFailed(f"{name} could not be made: {sentence_of(error)}") from error


def _extra_for(error: Exception) -> str:
    """Return our extra that brings the module that was not found, or an empty string."""
    missing = error.__cause__ if isinstance(error, gymnasium.error.DependencyNotInstalled) else error
    name = (missing.name or "").partition(".")[0] if isinstance(missing, ImportError) else ""
    return name if name in _EXTRAS else ""


def _remedy(extra: str) -> str:
    return f'; pip install "aioseed[{extra}]"' if extra else ""
