"""A trained policy as a function: for somebody's own loop, without a learner."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from aioseed.host.acting import acting_of
from aioseed.host.saved import load_run
from aioseed.serving.inference import ActRows
from aioseed.specs import Tree, flatten, spec_leaves
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
    """

    def __init__(self, path: Path | str, *, greedy: bool = True, seed: int = 0) -> None:
        run = load_run(Path(path))
        self.spec: EnvironmentSpec = run.built.spec
        self.version = run.version
        acting = acting_of(run.built, greedy=greedy)
        self._leaves = spec_leaves(self.spec.observation)
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
            observation=tuple(
                np.asarray(leaf, spec.numpy_dtype).reshape((1, *spec.shape))
                for leaf, spec in zip(flatten(observation), self._leaves, strict=True)
            ),
        )
        action, _, state = self._act(self._params, self._key, self._state, rows)
        self._state = list(state)
        self._previous = np.asarray(action)
        self._sequence += 1
        taken: np.ndarray = self._previous[0]
        return taken


def load_policy(path: Path | str, *, greedy: bool = True, seed: int = 0) -> LoadedPolicy:
    """Load the policy of a run directory's newest sound checkpoint.

    Args:
        path: A run directory; the run may be going on.
        greedy: Take the likeliest action instead of a sampled one.
        seed: Of the sampling.

    Raises:
        CheckpointError: There is no run, or none of its checkpoints is sound.
        ConfigError, PluginError, SpaceError: Its agent or network cannot be built here.
    """
    return LoadedPolicy(path, greedy=greedy, seed=seed)
