"""What agents with a policy and a value of its states have in common: network, acting, and the terms of their losses.

Their parameters are ``{"network": ...}`` and, where a target entropy is given, ``"entropy_cost"``, the logarithm of the
cost over the adjustment speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.agents import temperature
from aioseed.agents.actions import ActionConfig, action_distribution, choose_actions
from aioseed.agents.agent import ActInput, LearnerState, LossOutput, NetworkFactory, PyTree, Unroll
from aioseed.agents.transitions import Transitions, scaled_reward
from aioseed.nets.network import Head, Network, network_inputs
from aioseed.ops import losses
from aioseed.ops.distributions import ActionDistribution, Sample
from aioseed.specs import ActionSpec
from aioseed.types import EnvironmentSpec

_POLICY_SCALE = 0.01  # nearly uniform at first: a large random preference would have to be unlearned


class ActorCriticConfig(BaseModel):
    """Hold the options that such agents share. Losses are means over valid steps: coefficients do not depend on batch
    or unroll sizes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    discount: float = Field(default=0.99, ge=0, le=1, description="gamma, for one transition")
    entropy_cost: float = Field(
        default=0.00025, ge=0, description="weight of the entropy; its start where it is adjusted"
    )
    target_entropy: float | None = Field(
        default=None,
        description="entropy in nats that the entropy cost is adjusted to reach; null keeps the cost fixed",
    )
    entropy_cost_adjustment_speed: float = Field(
        default=10.0, gt=0, description="how fast the entropy cost moves: it is exp(speed x parameter)"
    )
    baseline_cost: float = Field(
        default=0.5, ge=0, description="weight of the value loss, which is half the squared error"
    )
    reward_scale: float = Field(default=1.0, gt=0, description="rewards are multiplied by this first")
    max_abs_reward: float = Field(default=0.0, ge=0, description="then clipped to plus or minus this; 0 does not clip")
    action: ActionConfig = ActionConfig()

    @model_validator(mode="after")
    def _adjustable(self) -> Self:
        if self.target_entropy is not None and self.entropy_cost == 0:
            raise ValueError(
                "entropy_cost must be above 0 where target_entropy is given, since it is adjusted by factors"
            )
        return self


class Acted(NamedTuple):
    """Hold what was decided for the rows of a batch."""

    action: jax.Array  # [B, *action shape]
    log_probs: jax.Array  # float32[B]
    hidden: tuple[jax.Array, ...]  # `Sample.hidden`, leaves [B, ...]
    values: jax.Array  # float32[B], as the network says them


class Outputs(NamedTuple):
    """Hold what the policies, the learned one and the one that acted, say of the rows of unrolls."""

    log_probs: jax.Array  # float32[T, B], of the taken actions
    behaviour_log_probs: jax.Array  # float32[T, B]
    entropies: jax.Array  # float32[T, B]
    values: jax.Array  # float32[T+1, B]


class ActorCritic(NamedTuple):
    """Bind options and a network with the heads ``policy`` and ``value`` to an environment."""

    config: ActorCriticConfig
    action: ActionSpec
    distribution: ActionDistribution
    network: Network

    @classmethod
    def of(cls, config: ActorCriticConfig, environment: EnvironmentSpec, make_network: NetworkFactory) -> ActorCritic:
        """Make one.

        Raises:
            SpaceError: The agent cannot take such actions.
        """
        distribution = action_distribution(environment.action, config.action)
        heads = {"policy": Head(distribution.parameter_size, _POLICY_SCALE), "value": Head(1)}
        network = make_network(environment.observation, environment.action, heads)
        return cls(config, environment.action, distribution, network)

    def init(self, key: jax.Array) -> PyTree:
        """Return the parameters at the start."""
        params = {"network": self.network.init(key)}
        if self.config.target_entropy is not None:
            params["entropy_cost"] = temperature.initial_parameter(self.config)
        return params

    def act(self, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool) -> tuple[Acted, PyTree]:
        """Decide for a batch of rows; arguments and state as in `aioseed.agents.agent.ActFunction`."""
        reward = scaled_reward(self.config, rows.reward)
        inputs = network_inputs(self.action, rows.observation, reward, rows.flags, rows.previous_action)
        found, state = self.network.step(params["network"], state, inputs)
        policy = found["policy"]
        sample = choose_actions(self.distribution, policy, key, rows, greedy)
        log_probs = self.distribution.log_prob(policy, sample)
        return Acted(sample.action, log_probs, sample.hidden, found["value"][..., 0]), state

    def outputs(self, params: PyTree, unroll: Unroll) -> Outputs:
        """Return what the policies say of unrolls whose extras hold ``behaviour_log_prob`` and ``hidden``.

        Of the last row only the value counts: its action belongs to the next unroll.
        """
        reward = scaled_reward(self.config, unroll.reward)
        inputs = network_inputs(self.action, unroll.observation, reward, unroll.flags, unroll.previous_action)
        found, _ = self.network.unroll(params["network"], unroll.initial_state, inputs)
        policy = found["policy"][:-1]
        sample = jax.tree.map(lambda leaf: leaf[:-1], Sample(unroll.action, unroll.extras["hidden"]))
        return Outputs(
            self.distribution.log_prob(policy, sample),
            unroll.extras["behaviour_log_prob"][:-1],
            self.distribution.entropy(policy),
            found["value"][..., 0],
        )

    def entropy_cost(self, params: PyTree) -> jax.Array:
        """Return float32[], the weight of the entropy."""
        if self.config.target_entropy is None:
            return jnp.asarray(self.config.entropy_cost, jnp.float32)
        return temperature.cost_of(self.config, params["entropy_cost"])

    def after_update(self, state: LearnerState, step: jax.Array) -> LearnerState:
        """Return the state after an optimiser step, with the entropy cost in its bounds."""
        del step
        if self.config.target_entropy is None:
            return state
        bounded = temperature.bounded_parameter(self.config, state.params["entropy_cost"])
        return LearnerState({**state.params, "entropy_cost": bounded}, state.extra)


class Terms(NamedTuple):
    """Hold the terms of a loss, one number a step, without the coefficients of value and entropy."""

    policy: jax.Array  # float32[T, B]
    value: jax.Array  # float32[T, B]
    more: Mapping[str, jax.Array]  # float32[T, B] each, added as they are; by the names of their metrics
    watched: Mapping[str, jax.Array]  # float32[T, B] each, metrics that are no terms


def actor_critic_loss(
    config: ActorCriticConfig, steps: Transitions, found: Outputs, entropy_cost: jax.Array, terms: Terms
) -> LossOutput:
    """Return the loss, summed over valid steps.

    ``total = policy + baseline_cost * value - entropy_cost * entropy + more``, and with a target entropy also
    ``entropy_cost * (entropy - target)``, whose gradient goes to the cost alone: it rises while the entropy is too low.

    Args:
        config: Coefficients.
        steps: The transitions of B unrolls.
        found: What the policies say of them.
        entropy_cost: float32[].
        terms: What the algorithm makes of both.
    """

    def total_of(per_step: jax.Array) -> jax.Array:
        return losses.masked_sum(per_step, steps.valid)

    count = jnp.sum(steps.valid, dtype=jnp.float32)
    entropy = total_of(found.entropies)
    parts = {
        "losses/policy": total_of(terms.policy),
        "losses/value": config.baseline_cost * total_of(terms.value),
        "losses/entropy": -jax.lax.stop_gradient(entropy_cost) * entropy,
        **{name: total_of(term) for name, term in terms.more.items()},
    }
    total = sum(parts.values(), start=jnp.float32(0))
    if config.target_entropy is not None:
        total = total + entropy_cost * jax.lax.stop_gradient(entropy - config.target_entropy * count)
    metrics = {
        **parts,
        "losses/total": total,
        "policy/entropy": entropy,
        "policy/entropy_cost": entropy_cost * count,
        **{name: total_of(numbers) for name, numbers in terms.watched.items()},
    }
    return LossOutput(total, count, jax.lax.stop_gradient(metrics), ())
