"""Publication: a versioned copy of the parameters, which inference reads and training never touches again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from aioseed.agents.agent import PyTree
from aioseed.training.device import wait_until_ready
from aioseed.types import Policy


def compile_copy(params: PyTree, device: jax.Device) -> Callable[[PyTree], PyTree]:
    """Return a function that copies trees shaped as `params` to `device` and returns once the copy is there.

    A copy, never a reference: the next update donates the original's buffers. On a device where training runs it is a
    program compiled ahead and without donation, which reads that device's own part of replicated parameters;
    `jax.device_put` would return the very same buffers there.

    Args:
        params: Parameters, on one device or whole on each of several.
        device: Where inference wants them.
    """
    homes = {home for leaf in jax.tree.leaves(params) for home in leaf.devices()}
    if device not in homes:
        return lambda tree: wait_until_ready(jax.device_put(tree, device))
    if homes == {device}:
        program = jax.jit(_copy).lower(params).compile()
        return lambda tree: wait_until_ready(program(tree))
    part = partial(_part_on, device)
    local = jax.jit(_copy).lower(jax.tree.map(part, params)).compile()
    return lambda tree: wait_until_ready(local(jax.tree.map(part, tree)))


class PolicyBoard:
    """Hold the newest policy (implements `aioseed.types.PolicySource`).

    Thread: training publishes, any thread reads and waits.
    """

    def __init__(self, copy: Callable[[PyTree], PyTree], params: PyTree, version: int = 0) -> None:
        self._copy = copy
        self._changed = threading.Condition()
        self._closed = False
        self._policy = Policy(version, copy(params))

    def current(self) -> Policy:
        """Return the newest published policy. Never blocks."""
        return self._policy

    def publish(self, params: PyTree, version: int, *, last: bool = False) -> None:
        """Publish a copy of `params`; `params` themselves may be donated as soon as this returns.

        Args:
            params: What to copy.
            version: Number of optimiser steps made so far.
            last: Close the board in the same moment, so that nobody who waits goes on with the last policy.

        Raises:
            ValueError: `version` is not newer than the last one.
        """
        if version <= self._policy.version:
            raise ValueError(f"version {version} is not newer than {self._policy.version}")
        policy = Policy(version, self._copy(params))
        with self._changed:
            self._policy = policy
            self._closed |= last
            self._changed.notify_all()

    def wait_for(self, version: int, timeout_s: float) -> bool:
        """Block until at least `version` is published; False after `timeout_s` or when training has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._policy.version >= version, timeout_s)
            return not self._closed and self._policy.version >= version

    def close(self) -> None:
        """Wake all who wait: nothing more will be published. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _part_on(device: jax.Device, leaf: jax.Array) -> jax.Array:
    """Return what `device` holds of `leaf`, without a copy."""
    part: jax.Array = next(shard.data for shard in leaf.addressable_shards if shard.device == device)
    return part


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)
