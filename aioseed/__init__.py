"""Train deep RL agents with environments in one place and accelerators in another."""

from __future__ import annotations

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
    """Import the public names when they are asked for: an actor's machine has no learner to import."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'aioseed' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)
