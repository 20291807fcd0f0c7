"""Observation transforms in front of any agent: the agent sees what comes out of them and knows nothing of them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, PyTree, Unroll
from aioseed.nets.transforms import Transform
from aioseed.types import FIRST


class Entered(NamedTuple):
    """Hold the recurrent state of a slot: that of the transform and that of the agent."""

    transform: PyTree
    agent: PyTree


class Published(NamedTuple):
    """Hold what acting needs."""

    transform: PyTree  # params of the transform
    agent: PyTree


class TransformedExtra(NamedTuple):
    """Hold `LearnerState.extra`: the statistics are no parameters, for nothing differentiates them."""

    transform: PyTree  # params of the transform
    agent: PyTree  # the agent's own extra


def transformed(agent: Agent, transform: Transform) -> Agent:
    """Return `agent` behind `transform`; the agent was built for ``transform.observation``.

    What the transform has learned is in `LearnerState.extra` and is published with what the agent publishes. One value
    of it stands for all rows of an optimiser step; the rows of that step count afterwards. The agent's own functions
    for first priorities and for `observe` see observations as they were sent.
    """
    parts = _Parts(agent, transform)
    priorities = agent.priorities
    return agent._replace(
        init=partial(_init, parts),
        initial_state=lambda: Entered(transform.initial_state(), agent.initial_state()),
        act=partial(_act, parts),
        loss=partial(_loss, parts),
        after_update=partial(_after_update, parts),
        published=partial(_published, parts),
        observe=partial(_observe, parts),
        priorities=None if priorities is None else lambda unroll: priorities(_inner(unroll)),
    )


class _Parts(NamedTuple):
    agent: Agent
    transform: Transform


def _init(parts: _Parts, key: jax.Array) -> LearnerState:
    return _with(parts.transform.init(), parts.agent.init(key))


def _act(
    parts: _Parts, params: Published, key: jax.Array, state: Entered, rows: ActInput, greedy: bool
) -> tuple[ActOutput, PyTree]:
    first = (rows.flags & FIRST) != 0
    observation, remembered = parts.transform.step(params.transform, state.transform, rows.observation, first)
    seen = rows._replace(observation=observation)
    answer, after = parts.agent.act(params.agent, key, state.agent, seen, greedy)
    return answer, Entered(remembered, after)


def _loss(parts: _Parts, params: PyTree, extra: TransformedExtra, unroll: Unroll, keys: jax.Array) -> LossOutput:
    first = (unroll.flags & FIRST) != 0
    entered: Entered = unroll.initial_state
    observation, _ = parts.transform.unroll(extra.transform, entered.transform, unroll.observation, first)
    seen = _inner(unroll)._replace(observation=observation)
    return parts.agent.loss(params, extra.agent, seen, keys)


def _after_update(parts: _Parts, state: LearnerState, step: jax.Array) -> LearnerState:
    return _with(state.extra.transform, parts.agent.after_update(_agents(state), step))


def _published(parts: _Parts, state: LearnerState) -> PyTree:
    return Published(state.extra.transform, parts.agent.published(_agents(state)))


def _observe(parts: _Parts, state: LearnerState, unroll: Unroll) -> LearnerState:
    first = (unroll.flags & FIRST) != 0
    # Every row of a slot is in this part of exactly one unroll.
    rows = jnp.arange(first.shape[0])
    inside = (rows >= parts.agent.overlap_steps) & (rows < first.shape[0] - 1)
    fresh = jnp.broadcast_to(inside[:, None], first.shape)
    entered: Entered = unroll.initial_state
    learned = parts.transform.observe(state.extra.transform, entered.transform, unroll.observation, first, fresh)
    return _with(learned, parts.agent.observe(_agents(state), _inner(unroll)))


def _inner(unroll: Unroll) -> Unroll:
    return unroll._replace(initial_state=unroll.initial_state.agent)


def _agents(state: LearnerState) -> LearnerState:
    return LearnerState(state.params, state.extra.agent)


def _with(learned: PyTree, state: LearnerState) -> LearnerState:
    return LearnerState(state.params, TransformedExtra(learned, state.extra))
