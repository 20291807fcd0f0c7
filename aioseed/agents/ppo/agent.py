"""The PPO agent: several passes over what was just played, each step of the policy bounded (Schulman et al. 2017)."""

from __future__ import annotations

from functools import partial

import jax

from aioseed.agents.actor_critic import ActorCritic
from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, NetworkFactory, PyTree, Unroll
from aioseed.agents.ppo.config import PpoConfig
from aioseed.agents.ppo.loss import ppo_loss, seen
from aioseed.agents.ppo.scale import Scale
from aioseed.agents.transitions import transitions
from aioseed.specs import ArraySpec
from aioseed.types import EnvironmentSpec


def build(config: PpoConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return the PPO agent for an environment; its parameters are those of `aioseed.agents.actor_critic`.

    Extra is a `Scale`. A row's extras: ``behaviour_log_prob``, ``hidden`` (`Sample.hidden`) and ``value``, as the
    network said it.

    Raises:
        SpaceError: The agent cannot take such actions.
    """
    parts = ActorCritic.of(config, environment, make_network)
    number = ArraySpec("float32", ())
    return Agent(
        init=lambda key: LearnerState(parts.init(key), Scale.unknown()),
        initial_state=parts.network.initial_state,
        act=partial(_act, parts),
        loss=partial(_loss, config, parts),
        after_update=parts.after_update,
        extras=lambda: {"behaviour_log_prob": number, "hidden": parts.distribution.hidden, "value": number},
        overlap_steps=0,
        observe=partial(_observe, config),
    )


def _act(
    parts: ActorCritic, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool
) -> tuple[ActOutput, PyTree]:
    acted, state = parts.act(params, key, state, rows, greedy)
    extras = {"behaviour_log_prob": acted.log_probs, "hidden": acted.hidden, "value": acted.values}
    return ActOutput(acted.action, extras), state


def _loss(
    config: PpoConfig, parts: ActorCritic, params: PyTree, scale: Scale, unroll: Unroll, keys: jax.Array
) -> LossOutput:
    del keys
    return ppo_loss(
        config,
        scale,
        transitions(config, unroll.reward, unroll.flags),
        parts.outputs(params, unroll),
        parts.entropy_cost(params),
    )


def _observe(config: PpoConfig, state: LearnerState, unroll: Unroll) -> LearnerState:
    steps = transitions(config, unroll.reward, unroll.flags)
    return LearnerState(state.params, seen(config, state.extra, steps, unroll.extras["value"]))
