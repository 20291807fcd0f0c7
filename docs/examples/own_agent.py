"""An agent of one's own: REINFORCE with a baseline (Williams 1992), for actions that are one integer.

Name it in a preset as ``own_agent:agent``. It is on-policy to the letter: it takes the steps of an unroll for its own,
whichever version of the parameters acted. The lag of a run is the error it makes, which V-trace corrects.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict

from aioseed.agents.actions import ActionConfig, action_distribution, choose_actions
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
from aioseed.nets.network import Head, network_inputs
from aioseed.ops.distributions import Sample
from aioseed.types import FIRST, TERMINATED, EnvironmentSpec


class ReinforceConfig(BaseModel):
    """Options of the agent: the section ``agent`` of a preset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    discount: float = 0.99
    baseline_cost: float = 0.5


def build(config: ReinforceConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> Agent:
    """Return the agent: pure functions over what is bound here."""
    distribution = action_distribution(environment.action, ActionConfig())
    heads = {"policy": Head(distribution.parameter_size, 0.01), "value": Head(1)}
    network = make_network(environment.observation, environment.action, heads)

    def init(key: jax.Array) -> LearnerState:
        return LearnerState(params=network.init(key), extra=())

    def act(params: Any, key: jax.Array, state: Any, rows: ActInput, greedy: bool) -> tuple[ActOutput, Any]:
        inputs = network_inputs(environment.action, rows.observation, rows.reward, rows.flags, rows.previous_action)
        outputs, state = network.step(params, state, inputs)
        sample = choose_actions(distribution, outputs["policy"], key, rows, greedy)
        return ActOutput(sample.action, extras={}), state

    def loss(params: Any, extra: Any, unroll: Unroll, keys: jax.Array) -> LossOutput:
        inputs = network_inputs(
            environment.action, unroll.observation, unroll.reward, unroll.flags, unroll.previous_action
        )
        outputs, _ = network.unroll(params, unroll.initial_state, inputs)
        values = outputs["value"][..., 0]
        # Transition t leads from row t to row t+1; before a first row there is none.
        valid = (unroll.flags[1:] & FIRST) == 0
        discounts = jnp.where((unroll.flags[1:] & TERMINATED) != 0, 0.0, config.discount)
        returns = discounted_returns(unroll.reward[1:], discounts, jax.lax.stop_gradient(values), valid)
        advantages = returns - values[:-1]
        log_probs = distribution.log_prob(outputs["policy"][:-1], Sample(unroll.action[:-1]))
        policy_loss = -log_probs * jax.lax.stop_gradient(advantages)
        value_loss = 0.5 * jnp.square(advantages)
        # Sums over valid steps: the runtime adds up pieces of a batch and divides by the count once.
        total = jnp.sum(jnp.where(valid, policy_loss + config.baseline_cost * value_loss, 0.0))
        metrics = {"losses/value": jnp.sum(jnp.where(valid, value_loss, 0.0))}
        return LossOutput(total, jnp.sum(valid, dtype=jnp.float32), metrics, aux=())

    return Agent(
        init=init,
        initial_state=network.initial_state,
        act=act,
        loss=loss,
        after_update=lambda state, step: state,
        extras=dict,
        overlap_steps=0,
    )


def discounted_returns(rewards: jax.Array, discounts: jax.Array, values: jax.Array, valid: jax.Array) -> jax.Array:
    """Return float32[T, B]: rewards to the end of the episode, or to the last row and its value."""

    def step(later: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward, discount, value, is_valid = now
        # At a final row stands its own value: a truncated episode bootstraps from it, a terminated one does not.
        current = jnp.where(is_valid, reward + discount * later, value)
        return current, current

    _, returns = jax.lax.scan(step, values[-1], (rewards, discounts, values[:-1], valid), reverse=True)
    return returns


agent = AgentPlugin(ReinforceConfig, build)
