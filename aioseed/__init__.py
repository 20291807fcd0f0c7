"""Train deep RL agents with environments in one place and accelerators in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # What `_LAZY` says, for type checkers, which know nothing of `__getattr__`.
    from aioseed.actor.config import EnvironmentConfig
    from aioseed.actor.run import run_actor
    from aioseed.host.config import RunConfig, load_config
    from aioseed.host.learner import Learner
    from aioseed.host.policy import load_policy

__version__ = "0.1.0"

_LAZY = {
    "Learner": "aioseed.host.learner",
    "RunConfig": "aioseed.host.config",
    "load_config": "aioseed.host.config",
    "load_policy": "aioseed.host.policy",
    "run_actor": "aioseed.actor.run",
    "EnvironmentConfig": "aioseed.actor.config",
}
__all__ = ["EnvironmentConfig", "Learner", "RunConfig", "__version__", "load_config", "load_policy", "run_actor"]


def __getattr__(name: str) -> object:
    """Import the public names when they are asked for: an actor's machine has no learner to import.

    Raises:
        PluginError: The name needs a learner's packages, which are not installed.
    """
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'aioseed' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        from aioseed.errors import PluginError
        from aioseed.lookup import without_learner

        remedy = without_learner(error)
        if not remedy:
            raise
        raise PluginError(f"aioseed.{name}: {remedy}", name=name, extra="learner") from error
