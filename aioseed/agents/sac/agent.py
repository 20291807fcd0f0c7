"""The SAC agent: twin critics, a squashed normal policy and a learned temperature (Haarnoja et al. 2018)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents import temperature
from aioseed.agents.actions import action_distribution, choose_actions
from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, NetworkFactory, PyTree, Unroll
from aioseed.agents.sac.config import SacConfig
from aioseed.agents.sac.loss import Outputs, sac_loss
from aioseed.agents.transitions import scaled_reward, transitions
from aioseed.errors import ConfigError, SpaceError
from aioseed.nets.network import Head, Network, NetworkInputs, action_features, depends_on_action, network_inputs
from aioseed.ops.distributions import ActionDistribution
from aioseed.specs import ActionSpec
from aioseed.types import EnvironmentSpec

_POLICY_SCALE = 0.01
_CRITIC = "critic"


def build(config: SacConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return the SAC agent for an environment.

    Its parameters are ``policy``, ``critics`` (N networks alike, stacked along the first axis) and, where there is a
    target entropy, ``entropy_cost``, the logarithm of the cost over the adjustment speed. Extra is the target
    ``critics``. Policy and critics have a network each, and with it a memory each where the network is recurrent. Rows
    have no extras: what the policy would do now is drawn anew.

    Raises:
        SpaceError: The action is no Box, or one without finite bounds.
        ConfigError: The network does not look at the action.
    """
    if environment.action.kind != "box":
        raise SpaceError(f"SAC takes Box actions, and this environment's are {environment.action.kind}")
    distribution = action_distribution(environment.action, config.action)

    def network(name: str, head: Head) -> Network:
        return make_network(environment.observation, environment.action, {name: head})

    critic = network(_CRITIC, Head(1, takes_action=True))
    if not depends_on_action(critic, environment.observation, environment.action, _CRITIC):
        raise ConfigError(
            "network: its critic does not look at NetworkInputs.action, so it cannot be Q(x, a)", path="network"
        )
    policy = network("policy", Head(distribution.parameter_size, _POLICY_SCALE))
    parts = _Parts(config, environment.action, distribution, policy, critic)
    return Agent(
        init=partial(_init, parts),
        initial_state=partial(_initial_state, parts),
        act=partial(_act, parts),
        loss=partial(_loss, parts),
        after_update=partial(_after_update, parts),
        extras=dict,
        overlap_steps=0,
        replay="required",
    )


class _Parts(NamedTuple):
    config: SacConfig
    action: ActionSpec
    distribution: ActionDistribution
    policy: Network
    critic: Network

    @property
    def target_entropy(self) -> float | None:
        wanted = self.config.target_entropy
        return -float(self.action.array.size) if wanted == "auto" else wanted


def _init(parts: _Parts, key: jax.Array) -> LearnerState:
    policy_key, critic_key = jax.random.split(key)
    critics = jax.vmap(parts.critic.init)(jax.random.split(critic_key, parts.config.critics))
    params = {"policy": parts.policy.init(policy_key), "critics": critics}
    if parts.target_entropy is not None:
        params["entropy_cost"] = temperature.initial_parameter(parts.config)
    return LearnerState(params, {"critics": critics})


def _initial_state(parts: _Parts) -> PyTree:
    def each(leaf: jax.Array) -> jax.Array:
        return jnp.broadcast_to(leaf, (parts.config.critics, *leaf.shape))

    return {"policy": parts.policy.initial_state(), "critics": jax.tree.map(each, parts.critic.initial_state())}


def _act(
    parts: _Parts, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool
) -> tuple[ActOutput, PyTree]:
    reward = scaled_reward(parts.config, rows.reward)
    inputs = network_inputs(parts.action, rows.observation, reward, rows.flags, rows.previous_action)
    found, policy_state = parts.policy.step(params["policy"], state["policy"], inputs)
    sample = choose_actions(parts.distribution, found["policy"], key, rows, greedy)
    critic_state = _remembered(parts, params["critics"], state["critics"], inputs)
    return ActOutput(sample.action, {}), {"policy": policy_state, "critics": critic_state}


def _remembered(parts: _Parts, critics: PyTree, state: PyTree, inputs: NetworkInputs) -> PyTree:
    """Return the critics' states after these rows, leaves [B, N, ...]: unrolls are stored with them."""
    if not jax.tree.leaves(state):
        return state
    # Their values are not asked for, and the state does not depend on the action.
    asked = inputs._replace(action=inputs.previous_action)
    _, state = jax.vmap(parts.critic.step, in_axes=(0, 1, None), out_axes=(0, 1))(critics, state, asked)
    return state


def _loss(parts: _Parts, params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
    reward = scaled_reward(parts.config, unroll.reward)
    inputs = network_inputs(parts.action, unroll.observation, reward, unroll.flags, unroll.previous_action)
    state, before = unroll.initial_state, _rows(inputs, slice(None, -1))
    outputs, _ = parts.policy.unroll(params["policy"], state["policy"], inputs)
    policy = outputs["policy"]
    sample = parts.distribution.sample(policy, _uniforms(parts, keys, len(policy)))
    log_probs = parts.distribution.log_prob(policy, sample)

    values = partial(_values, parts, state["critics"])
    found = Outputs(
        taken=values(params["critics"], before, unroll.action[:-1]),
        proposed=values(jax.lax.stop_gradient(params["critics"]), before, sample.action[:-1]),
        log_probs=log_probs[:-1],
        after=_values_after(parts, extra["critics"], state["critics"], inputs, sample.action),
        log_probs_after=log_probs[1:],
    )
    steps = transitions(parts.config, unroll.reward, unroll.flags)
    return sac_loss(steps, found, _entropy_cost(parts, params), parts.target_entropy)


def _uniforms(parts: _Parts, keys: jax.Array, rows: int) -> jax.Array:
    """Return float32[rows, B, U], each unroll's from its own key."""

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (rows, parts.distribution.uniforms_per_action))

    uniforms: jax.Array = jax.vmap(draw, out_axes=1)(keys)
    return uniforms


def _values(parts: _Parts, state: PyTree, critics: PyTree, inputs: NetworkInputs, action: jax.Array) -> jax.Array:
    """Return float32[N, rows, B], what each critic says of one action a row."""
    asked = inputs._replace(action=action_features(parts.action, action))
    found, _ = jax.vmap(parts.critic.unroll, in_axes=(0, 1, None))(critics, state, asked)
    values: jax.Array = found[_CRITIC][..., 0]
    return values


def _values_after(parts: _Parts, critics: PyTree, state: PyTree, inputs: NetworkInputs, action: jax.Array) -> jax.Array:
    """Return float32[N, T, B], the values of rows 1 to T; row 0 is passed through only for the sake of a memory."""
    if jax.tree.leaves(state):
        return _values(parts, state, critics, inputs, action)[:, 1:]
    return _values(parts, state, critics, _rows(inputs, slice(1, None)), action[1:])


def _rows(inputs: NetworkInputs, which: slice) -> NetworkInputs:
    chosen: NetworkInputs = jax.tree.map(lambda leaf: leaf[which], inputs)
    return chosen


def _entropy_cost(parts: _Parts, params: PyTree) -> jax.Array:
    if parts.target_entropy is None:
        return jnp.asarray(parts.config.entropy_cost, jnp.float32)
    return temperature.cost_of(parts.config, params["entropy_cost"])


def _after_update(parts: _Parts, state: LearnerState, step: jax.Array) -> LearnerState:
    """Move the targets towards the critics and keep the temperature within its bounds."""
    config, params = parts.config, state.params
    due = step % config.update_target_every == 0

    def moved(target: jax.Array, critic: jax.Array) -> jax.Array:
        return jnp.where(due, config.polyak * target + (1 - config.polyak) * critic, target)

    targets = jax.tree.map(moved, state.extra["critics"], params["critics"])
    if parts.target_entropy is not None:
        bounded = temperature.bounded_parameter(config, params["entropy_cost"])
        params = {**params, "entropy_cost": bounded}
    return LearnerState(params, {"critics": targets})
