"""A trained policy as a function: for somebody's own loop, without a learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from aioseed.errors import SpaceError
from aioseed.host.acting import acting_of
from aioseed.host.saved import load_run
from aioseed.serving.inference import ActRows
from aioseed.specs import ArraySpec, ObservationSpec, Tree
from aioseed.training.device import devices_may_fail
from aioseed.types import FIRST, EnvironmentSpec


class LoadedPolicy:
    """Act for one environment, keeping the recurrent state and the previous action between calls.

    ::

        policy = aioseed.load_policy("runs/cartpole-...")
        observation, _ = env.reset()
        policy.reset()
        reward, done = 0.0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(policy(observation, reward))
            done = terminated or truncated

    Thread: one at a time.

    Attributes:
        spec: Observation and action of the environment that it was trained in, as they travelled.
        version: Number of optimiser steps behind the parameters.
    """

    def __init__(self, path: Path | str, *, greedy: bool = True, seed: int = 0) -> None:
        run = load_run(Path(path))
        self.spec: EnvironmentSpec = run.built.spec
        self.version = run.version
        acting = acting_of(run.built, greedy="always" if greedy else "never")
        self._params = run.params
        self._key = jax.random.key(seed)
        self._initial: list[np.ndarray | jax.Array] = [np.asarray(leaf)[None] for leaf in acting.initial_state]
        self._act = jax.jit(acting.act)
        self._episode = -1
        self.reset()

    def reset(self) -> None:
        """Begin an episode: the next observation is its first."""
        self._episode += 1
        self._sequence = 0
        self._state = self._initial
        action = self.spec.action.array
        self._previous = np.zeros((1, *action.shape), action.numpy_dtype)

    def __call__(self, observation: Tree[np.ndarray], reward: float = 0.0) -> np.ndarray:
        """Return the action for `observation`: an array of the action spec, discrete choices counted from 0.

        Args:
            observation: As the environment returns it: an array, or a dict or tuple of them. Discrete parts count from
                0 as actions do: the `start` of their space is taken off.
            reward: The reward that came with it, raw; networks with a memory look at it by default.

        Raises:
            SpaceError: The observation is not one of the kind that the policy was trained on.
        """
        first = self._sequence == 0
        # NumPy columns: each jnp function here would be compiled, once for every shape.
        rows = ActRows(
            slot=np.zeros(1, np.uint32),
            epoch_low=np.full(1, self._episode, np.uint32),
            sequence=np.full(1, self._sequence, np.uint32),
            evaluation=np.ones(1, np.bool_),
            flags=np.full(1, FIRST if first else 0, np.uint8),
            reward=np.full(1, 0.0 if first else reward, np.float32),
            previous_action=self._previous,
            observation=tuple(_columns(observation, self.spec.observation, "observation")),
        )
        action, _, state = self._act(self._params, self._key, self._state, rows)
        self._state = list(state)
        self._previous = np.asarray(action)
        self._sequence += 1
        taken: np.ndarray = self._previous[0]
        return taken


def _columns(observation: object, spec: ObservationSpec, path: str) -> list[np.ndarray]:
    """Return the leaves of one observation as columns of one row, in the order of `specs.flatten`."""
    if isinstance(spec, ArraySpec):
        return [_column(np.asarray(observation), spec, path)]
    if isinstance(spec, dict):
        if not isinstance(observation, Mapping) or set(observation) != set(spec):
            has = f"the parts {', '.join(map(str, observation))}" if isinstance(observation, Mapping) else "no parts"
            raise SpaceError(f"{path} has {has}, the policy was trained on {', '.join(sorted(spec))}{_REMEDY}")
        branches = [(observation[key], spec[key], f"{path}.{key}") for key in sorted(spec)]
    else:
        if not isinstance(observation, Sequence) or len(observation) != len(spec):
            raise SpaceError(f"{path} is no tuple of {len(spec)}, as the policy was trained on{_REMEDY}")
        branches = [(observation[i], branch, f"{path}.{i}") for i, branch in enumerate(spec)]
    return [column for branch in branches for column in _columns(*branch)]


_REMEDY = ": give it one observation at a time, as the run's environment returns it behind its wrappers"


def _column(leaf: np.ndarray, spec: ArraySpec, path: str) -> np.ndarray:
    # Neither cut to shape nor wrapped around: a picture that lies on its side has as many numbers.
    if leaf.shape != spec.shape or not np.can_cast(leaf.dtype, spec.numpy_dtype, "same_kind"):
        given, wanted = f"{leaf.dtype}{list(leaf.shape)}", f"{spec.dtype}{list(spec.shape)}"
        raise SpaceError(f"{path} is {given}, the policy was trained on {wanted}{_REMEDY}")
    return leaf.astype(spec.numpy_dtype)[None]


@devices_may_fail("the policy cannot be loaded")
def load_policy(path: Path | str, *, greedy: bool = True, seed: int = 0) -> LoadedPolicy:
    """Load the policy of a run directory's newest sound checkpoint, or of one checkpoint.

    Args:
        path: A run directory, which may be going on, or the folder of a checkpoint, wherever it lies.
        greedy: Take the likeliest action instead of a sampled one.
        seed: Of the sampling.

    Raises:
        CheckpointError: There is no run, none of its checkpoints is sound, or this one is not.
        RunDirectoryError: It cannot be looked into: it is somebody else's.
        ConfigError, PluginError, SpaceError: Its agent or network cannot be built here.
        TrainingFailed: A device failed, or memory does not suffice.
    """
    return LoadedPolicy(path, greedy=greedy, seed=seed)
