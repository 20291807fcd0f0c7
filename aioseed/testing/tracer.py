"""An agent that learns nothing and forgets nothing: its recurrent state is a hash of all rows of the episode so far.

Each row is mixed into 64 bits together with the slot and the epoch under which it came. The state after a row therefore
follows from every row since the episode began, in their order: one that is missing, doubled, of another environment or
of another lease changes it, and goes unnoticed once in 2^64 times. Actions come from the hash, so that they differ from
row to row and a wrong one shows in the next observation of `aioseed.testing.counting`.

`mix` is written in operations that NumPy and JAX share: the expectation and the agent are one formula. The loss follows
the chain through each unroll and counts where it breaks: the metric ``violations``.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict

from aioseed.agents.agent import (
    ActInput,
    ActOutput,
    Agent,
    AgentPlugin,
    LearnerState,
    LossOutput,
    NetworkFactory,
    Unroll,
)
from aioseed.nets.network import PyTree
from aioseed.specs import ArraySpec
from aioseed.testing.counting import ACTIONS
from aioseed.types import FIRST, EnvironmentSpec

__all__ = ["TRACER", "TracerConfig", "mix", "tracer_agent"]

_LOW, _HIGH = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
Words = TypeVar("Words", np.ndarray, jax.Array)


def mix(low: Words, high: Words, word: Words) -> tuple[Words, Words]:
    """Return the two halves of a hash after `word`; all are uint32[B]."""
    low = (low ^ word) * _LOW
    low = low ^ (low >> 13)
    high = (high ^ (low << 7) ^ (low >> 25)) * _HIGH + word
    high = high ^ (high >> 16)
    return low ^ (high << 11), high


class TracerConfig(BaseModel):
    """Have no options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def tracer_agent(config: TracerConfig, spec: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Build the agent; it takes the observations of `CountingEnvironment` and needs no network."""

    def init(key: jax.Array) -> LearnerState:
        return LearnerState({"nothing": jnp.zeros(1)}, ())

    def act(params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool) -> tuple[ActOutput, PyTree]:
        low, high = state[:, 0], state[:, 1]
        for word in (rows.slot.astype(jnp.uint32), rows.epoch_low, *_words(rows.observation)):
            low, high = mix(low, high, word)
        after = jnp.stack([low, high], axis=1)
        lease = jnp.stack([rows.slot.astype(jnp.uint32), rows.epoch_low], axis=1)
        return ActOutput((low % ACTIONS).astype(jnp.int32), {"hash": after, "lease": lease}), after

    return Agent(
        init=init,
        initial_state=lambda: jnp.zeros(2, jnp.uint32),
        act=act,
        loss=_loss,
        after_update=lambda state, steps: state,
        extras=lambda: {"hash": ArraySpec("uint32", (2,)), "lease": ArraySpec("uint32", (2,))},
        overlap_steps=0,
    )


TRACER = AgentPlugin(TracerConfig, tracer_agent)
"""Name it in a configuration as ``agent: {name: "aioseed.testing.tracer:TRACER"}``."""


def _loss(params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
    hashes, lease = unroll.extras["hash"], unroll.extras["lease"]
    first = (unroll.flags & FIRST) != 0
    entering = jnp.concatenate([unroll.initial_state[None], hashes[:-1]])
    entering = jnp.where(first[..., None], jnp.zeros_like(entering), entering)
    low, high = entering[..., 0], entering[..., 1]
    for word in (lease[..., 0], lease[..., 1], *_words(unroll.observation)):
        low, high = mix(low, high, word)
    broken = (low != hashes[..., 0]) | (high != hashes[..., 1])
    broken |= (unroll.action != (low % ACTIONS).astype(jnp.int32)) | (lease != lease[:1]).any(-1)
    valid = (~first[1:]).astype(jnp.float32)
    # The observation of a row that is not first names the action that led to it.
    echo = _words(unroll.observation)[3].astype(jnp.int32)[1:]
    astray = ~first[1:] & (echo != unroll.action[:-1])
    violations = broken.sum(dtype=jnp.float32) + astray.sum(dtype=jnp.float32)
    return LossOutput(0.0 * params["nothing"].sum(), valid.sum(), {"violations": violations}, ())


def _words(observation: PyTree) -> list[jax.Array]:
    return [observation[..., column] for column in range(4)]
