"""The V-trace agent: IMPALA's algorithm with the options of SEED RL (Espeholt et al. 2018 and 2020)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents import temperature
from aioseed.agents.actions import action_distribution, choose_actions
from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, NetworkFactory, PyTree, Unroll
from aioseed.agents.transitions import scaled_reward, transitions
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.agents.vtrace.loss import outputs, vtrace_loss
from aioseed.nets.network import Head, Network, network_inputs
from aioseed.ops.distributions import ActionDistribution
from aioseed.specs import ActionSpec, ArraySpec
from aioseed.types import EnvironmentSpec

_POLICY_SCALE = 0.01  # nearly uniform at first: a large random preference would have to be unlearned


def build(config: VtraceConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return the V-trace agent for an environment.

    Its parameters are ``{"network": ...}`` and, where a target entropy is given, ``"entropy_cost"``, the logarithm
    of the cost over the adjustment speed. A row's extras: ``behaviour_log_prob`` and ``hidden`` (`Sample.hidden`).

    Raises:
        SpaceError: The agent cannot take such actions.
    """
    distribution = action_distribution(environment.action, config.action)
    heads = {"policy": Head(distribution.parameter_size, _POLICY_SCALE), "value": Head(1)}
    parts = _Parts(
        config,
        environment.action,
        distribution,
        make_network(environment.observation, environment.action, heads),
    )
    return Agent(
        init=partial(_init, parts),
        initial_state=parts.network.initial_state,
        act=partial(_act, parts),
        loss=partial(_loss, parts),
        after_update=partial(_after_update, parts),
        extras=lambda: {"behaviour_log_prob": ArraySpec("float32", ()), "hidden": distribution.hidden},
        overlap_steps=0,
        replay="optional",  # the importance weights are there already (section 5.2.2 of the paper)
    )


class _Parts(NamedTuple):
    config: VtraceConfig
    action: ActionSpec
    distribution: ActionDistribution
    network: Network


def _init(parts: _Parts, key: jax.Array) -> LearnerState:
    params = {"network": parts.network.init(key)}
    if parts.config.target_entropy is not None:
        params["entropy_cost"] = temperature.initial_parameter(parts.config)
    return LearnerState(params, ())


def _act(
    parts: _Parts, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool
) -> tuple[ActOutput, PyTree]:
    reward = scaled_reward(parts.config, rows.reward)
    inputs = network_inputs(parts.action, rows.observation, reward, rows.flags, rows.previous_action)
    found, state = parts.network.step(params["network"], state, inputs)
    policy, distribution = found["policy"], parts.distribution
    sample = choose_actions(distribution, policy, key, rows, greedy)
    extras = {"behaviour_log_prob": distribution.log_prob(policy, sample), "hidden": sample.hidden}
    return ActOutput(sample.action, extras), state


def _loss(parts: _Parts, params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
    del extra, keys
    reward = scaled_reward(parts.config, unroll.reward)
    inputs = network_inputs(parts.action, unroll.observation, reward, unroll.flags, unroll.previous_action)
    found, _ = parts.network.unroll(params["network"], unroll.initial_state, inputs)
    return vtrace_loss(
        parts.config,
        transitions(parts.config, unroll.reward, unroll.flags),
        outputs(parts.distribution, found["policy"], found["value"][..., 0], unroll),
        _entropy_cost(parts.config, params),
    )


def _entropy_cost(config: VtraceConfig, params: PyTree) -> jax.Array:
    if config.target_entropy is None:
        return jnp.asarray(config.entropy_cost, jnp.float32)
    return temperature.cost_of(config, params["entropy_cost"])


def _after_update(parts: _Parts, state: LearnerState, step: jax.Array) -> LearnerState:
    del step
    if parts.config.target_entropy is None:
        return state
    bounded = temperature.bounded_parameter(parts.config, state.params["entropy_cost"])
    return LearnerState({**state.params, "entropy_cost": bounded}, state.extra)
