"""The R2D2 agent: recurrent Q-learning from prioritised replay (Kapturowski et al. 2019), as in SEED RL."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, NetworkFactory, PyTree, Unroll
from aioseed.agents.r2d2.config import R2d2Config
from aioseed.agents.r2d2.exploration import epsilons
from aioseed.agents.r2d2.loss import r2d2_loss, suffix_of, td_errors
from aioseed.agents.transitions import scaled_reward
from aioseed.errors import SpaceError
from aioseed.nets.network import Head, Network, NetworkInputs, network_inputs
from aioseed.ops.rng import slot_uniforms
from aioseed.specs import ActionSpec, ArraySpec
from aioseed.types import EnvironmentSpec

_Q = "q_values"


def build(config: R2d2Config, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return the R2D2 agent for an environment.

    It asks the network for one head, ``q_values``. Its parameters are ``{"network": ...}``, its extra state is the
    target network ``{"target": ...}``. A row's extras: ``q_values``, from which first priorities are made.

    Raises:
        SpaceError: The action is not one discrete choice.
    """
    action = environment.action
    if action.kind != "discrete":
        raise SpaceError(f"r2d2 learns one discrete action; these are {action.kind} actions: vtrace can take them")
    choices = action.sizes[0]
    network = make_network(environment.observation, action, {_Q: Head(choices)})
    parts = _Parts(config, action, choices, network)
    return Agent(
        init=partial(_init, parts),
        initial_state=network.initial_state,
        act=partial(_act, parts),
        loss=partial(_loss, parts),
        after_update=partial(_after_update, parts),
        extras=lambda: {_Q: ArraySpec("float32", (choices,))},
        overlap_steps=config.burn_in_steps,
        replay="required",
        priorities=partial(_priorities, parts),
    )


class _Parts(NamedTuple):
    config: R2d2Config
    action: ActionSpec
    choices: int
    network: Network


def _init(parts: _Parts, key: jax.Array) -> LearnerState:
    params = {"network": parts.network.init(key)}
    return LearnerState(params, {"target": params["network"]})


def _inputs(parts: _Parts, rows: ActInput | Unroll) -> NetworkInputs:
    reward = scaled_reward(parts.config, rows.reward)
    return network_inputs(parts.action, rows.observation, reward, rows.flags, rows.previous_action)


def _act(
    parts: _Parts, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool
) -> tuple[ActOutput, PyTree]:
    found, state = parts.network.step(params["network"], state, _inputs(parts, rows))
    action = jnp.argmax(found[_Q], axis=-1)
    if not greedy:
        uniforms = slot_uniforms(key, rows.slot, rows.epoch_low, rows.sequence, 2)
        explores = uniforms[:, 0] < epsilons(parts.config.exploration, rows.slot, rows.evaluation)
        # A uniform below 1 times the number of choices may round up to it.
        drawn = jnp.minimum((uniforms[:, 1] * parts.choices).astype(action.dtype), parts.choices - 1)
        action = jnp.where(explores, drawn, action)
    return ActOutput(action.astype(parts.action.array.dtype), {_Q: found[_Q]}), state


def _loss(parts: _Parts, params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
    inputs = _inputs(parts, unroll)
    online = _suffix_q(parts, params["network"], unroll, inputs)
    target = jax.lax.stop_gradient(_suffix_q(parts, extra["target"], unroll, inputs))
    rows = suffix_of(parts.config, unroll.reward, unroll.flags, unroll.action)
    return r2d2_loss(parts.config, rows, online, target, unroll.importance)


def _suffix_q(parts: _Parts, params: PyTree, unroll: Unroll, inputs: NetworkInputs) -> jax.Array:
    """Return float32[L+1, B, A], after burning in from the stored state; no gradient flows into the burn-in."""
    state, burn_in = unroll.initial_state, parts.config.burn_in_steps
    if burn_in:
        prefix = jax.tree.map(lambda leaf: leaf[:burn_in], inputs)
        _, state = parts.network.unroll(jax.lax.stop_gradient(params), state, prefix)
        inputs = jax.tree.map(lambda leaf: leaf[burn_in:], inputs)
    found, _ = parts.network.unroll(params, jax.lax.stop_gradient(state), inputs)
    return found[_Q]


def _priorities(parts: _Parts, unroll: Unroll) -> jax.Array:
    """Return float32[B], from the values that acted; they stand in for those of the target network, as in SEED RL."""
    values = unroll.extras[_Q][parts.config.burn_in_steps :]
    rows = suffix_of(parts.config, unroll.reward, unroll.flags, unroll.action)
    return td_errors(parts.config, rows, values, values).priority


def _after_update(parts: _Parts, state: LearnerState, step: jax.Array) -> LearnerState:
    share = parts.config.target_update_share
    due = step % parts.config.target_update_every == 0

    def follow(online: jax.Array, target: jax.Array) -> jax.Array:
        moved = online if share == 1 else (share * online + (1 - share) * target).astype(target.dtype)
        return jnp.where(due, moved, target)

    target = jax.tree.map(follow, state.params["network"], state.extra["target"])
    return LearnerState(state.params, {"target": target})
