"""The V-trace agent: IMPALA's algorithm with the options of SEED RL (Espeholt et al. 2018 and 2020)."""

from __future__ import annotations

from functools import partial

import jax

from aioseed.agents.actor_critic import ActorCritic
from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, NetworkFactory, PyTree, Unroll
from aioseed.agents.transitions import transitions
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.agents.vtrace.loss import vtrace_loss
from aioseed.specs import ArraySpec
from aioseed.types import EnvironmentSpec


def build(config: VtraceConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return the V-trace agent for an environment; its parameters are those of `aioseed.agents.actor_critic`.

    A row's extras: ``behaviour_log_prob`` and ``hidden`` (`Sample.hidden`).

    Raises:
        SpaceError: The agent cannot take such actions.
    """
    parts = ActorCritic.of(config, environment, make_network)
    return Agent(
        init=lambda key: LearnerState(parts.init(key), ()),
        initial_state=parts.network.initial_state,
        act=partial(_act, parts),
        loss=partial(_loss, config, parts),
        after_update=parts.after_update,
        extras=lambda: {"behaviour_log_prob": ArraySpec("float32", ()), "hidden": parts.distribution.hidden},
        overlap_steps=0,
        replay="optional",  # the importance weights are there already (section 5.2.2 of the paper)
    )


def _act(
    parts: ActorCritic, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool
) -> tuple[ActOutput, PyTree]:
    acted, state = parts.act(params, key, state, rows, greedy)
    return ActOutput(acted.action, {"behaviour_log_prob": acted.log_probs, "hidden": acted.hidden}), state


def _loss(
    config: VtraceConfig, parts: ActorCritic, params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array
) -> LossOutput:
    del extra, keys
    return vtrace_loss(
        config,
        transitions(config, unroll.reward, unroll.flags),
        parts.outputs(params, unroll),
        parts.entropy_cost(params),
    )
