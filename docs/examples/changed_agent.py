"""V-trace that learns from another reward: an agent that is there, with one thing changed.

Name it in a preset as ``changed_agent:agent``; its options are those of V-trace.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aioseed.agents.agent import ActInput, ActOutput, Agent, AgentPlugin, LossOutput, NetworkFactory, Unroll
from aioseed.agents.vtrace import agent as vtrace
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.types import EnvironmentSpec


def learned_from(reward: jax.Array) -> jax.Array:
    """Return the reward that is learned from: large ones count by their logarithm."""
    return jnp.sign(reward) * jnp.log1p(jnp.abs(reward))


def build(config: VtraceConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return V-trace behind the change."""
    inner = vtrace.build(config, environment, make_network)

    def act(params: Any, key: jax.Array, state: Any, rows: ActInput, greedy: bool) -> tuple[ActOutput, Any]:
        return inner.act(params, key, state, rows._replace(reward=learned_from(rows.reward)), greedy)

    def loss(params: Any, extra: Any, unroll: Unroll, keys: jax.Array) -> LossOutput:
        return inner.loss(params, extra, unroll._replace(reward=learned_from(unroll.reward)), keys)

    return inner._replace(act=act, loss=loss)


agent = AgentPlugin(VtraceConfig, build)
