"""Find the device that a configuration names, and put copies of arrays there that nobody else holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from aioseed.errors import ConfigError

Tree = TypeVar("Tree")


def find_device(name: str, path: str = "training.device") -> jax.Device:
    """Return the device called `name`: ``default``, or platform and index such as ``gpu:1``.

    Raises:
        ConfigError: This machine has no such device.
    """
    if name == "default":
        return jax.local_devices()[0]
    platform, _, index = name.partition(":")
    try:
        return jax.local_devices(backend=platform)[int(index)]
    except (RuntimeError, IndexError, ValueError) as error:
        known = ", ".join(f"{device.platform}:{device.id}" for device in jax.local_devices())
        message = f"{path} is {name!r}, but this machine has only {known}"
        raise ConfigError(message, path=path, value=name, expected=known) from error


def owned(tree: Tree, device: jax.Device) -> Tree:
    """Return `tree` as arrays on `device` in memory of their own.

    What is donated must be ours alone: JAX takes a NumPy array on the CPU without a copy, and an agent may put the same
    array into its state twice (a target network at the start).
    """
    copies: Tree = jax.tree.map(lambda leaf: jax.device_put(jnp.array(leaf, copy=True), device), tree)
    return copies


def wait_until_ready(tree: Tree) -> Tree:
    """Return `tree` once all its arrays are computed."""
    wait: Callable[[Tree], Tree] = jax.block_until_ready
    return wait(tree)
