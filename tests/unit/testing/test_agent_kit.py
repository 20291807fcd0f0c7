"""The agent kit passes a sound agent and names what is wrong with a broken one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import Agent
from aioseed.agents.vtrace import agent as vtrace
from aioseed.nets.network import Network, reset_where_first
from aioseed.specs import ArraySpec, discrete
from aioseed.testing import agent_kit
from aioseed.testing.agent_kit import AgentUnderTest, check_agent
from aioseed.types import FIRST, EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(3))


def linear(observation, action, heads) -> Network:
    """Make a network with a memory that compiles fast: it adds half of the observation before to the one now."""

    def init(key):
        return {name: 0.1 * jax.random.normal(key, (4, head.size)) for name, head in heads.items()}

    def step(params, state, inputs):
        state = inputs.observation + 0.5 * reset_where_first(jnp.zeros(3), state, inputs.first)
        features = jnp.concatenate([state, jnp.ones_like(state[:, :1])], axis=1)
        return {name: features @ kernel for name, kernel in params.items()}, state

    def unroll(params, state, inputs):
        def row(state, now):
            outputs, state = step(params, state, now)
            return state, outputs

        state, outputs = jax.lax.scan(row, state, inputs)
        return outputs, state

    return Network(init, lambda: jnp.zeros(3), step, unroll)


def sound() -> Agent:
    return vtrace.build(vtrace.config_type(entropy_cost=0.01), SPEC, linear)


def other_action_dtype(agent: Agent) -> Agent:
    def act(params, key, state, rows, greedy):
        answer, state = agent.act(params, key, state, rows, greedy)
        return answer._replace(action=answer.action.astype(jnp.int8)), state

    return agent._replace(act=act)


def noise_by_place(agent: Agent) -> Agent:
    def act(params, key, state, rows, greedy):
        rows = rows._replace(slot=jnp.arange(len(rows.slot), dtype=jnp.uint32))
        return agent.act(params, key, state, rows, greedy)

    return agent._replace(act=act)


def noise_when_greedy(agent: Agent) -> Agent:
    return agent._replace(act=lambda params, key, state, rows, greedy: agent.act(params, key, state, rows, False))


def impure(agent: Agent) -> Agent:
    generator = np.random.default_rng(0)

    def act(params, key, state, rows, greedy):
        return agent.act(params, jax.random.key(int(generator.integers(2**31))), state, rows, greedy)

    return agent._replace(act=act)


def draws_where_measured(agent: Agent) -> Agent:
    def act(params, key, state, rows, greedy):
        return agent.act(params, key, state, rows._replace(takes_mode=jnp.zeros_like(rows.takes_mode)), greedy)

    return agent._replace(act=act)


def measured_together(agent: Agent) -> Agent:
    def act(params, key, state, rows, greedy):
        any_row = jnp.broadcast_to(jnp.any(rows.takes_mode), rows.takes_mode.shape)
        return agent.act(params, key, state, rows._replace(takes_mode=any_row), greedy)

    return agent._replace(act=act)


def answer_alone(agent: Agent) -> Agent:
    return agent._replace(act=lambda *arguments: agent.act(*arguments)[0])


def total_alone(agent: Agent) -> Agent:
    return agent._replace(loss=lambda *arguments: agent.loss(*arguments).total)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"init": lambda key: {}}, "init returned a dict, no LearnerState"),
        ({"initial_state": lambda: 0.0}, "initial_state holds 0.0, which is no array"),
        ({"overlap_steps": -1}, "overlap_steps is -1"),
    ],
)
def test_what_is_no_agent_is_told_before_anything_is_tried(changes, complaint) -> None:
    with pytest.raises(AssertionError, match=complaint):
        AgentUnderTest(sound()._replace(**changes), SPEC)


def no_reset(agent: Agent) -> Agent:
    def act(params, key, state, rows, greedy):
        return agent.act(params, key, state, rows._replace(flags=rows.flags & ~FIRST), greedy)

    return agent._replace(act=act)


def mean_instead_of_sum(agent: Agent) -> Agent:
    def loss(params, extra, unroll, keys):
        found = agent.loss(params, extra, unroll, keys)
        return found._replace(total=found.total / found.count)

    return agent._replace(loss=loss)


def borders_ignored(agent: Agent) -> Agent:
    def loss(params, extra, unroll, keys):
        return agent.loss(params, extra, unroll._replace(flags=unroll.flags & ~FIRST), keys)

    return agent._replace(loss=loss)


def no_reset_in_unrolls(agent: Agent) -> Agent:
    def network(observation, action, heads) -> Network:
        made = linear(observation, action, heads)

        def unroll(params, state, inputs):
            return made.unroll(params, state, inputs._replace(first=jnp.zeros_like(inputs.first)))

        return made._replace(unroll=unroll)

    return vtrace.build(vtrace.config_type(entropy_cost=0.01), SPEC, network)


def infinite_at_extremes(agent: Agent) -> Agent:
    def loss(params, extra, unroll, keys):
        found = agent.loss(params, extra, unroll, keys)
        return found._replace(total=found.total + 0 * jnp.exp(jnp.max(unroll.reward)))

    return agent._replace(loss=loss)


def no_gradient(agent: Agent) -> Agent:
    def loss(params, extra, unroll, keys):
        return agent.loss(jax.lax.stop_gradient(params), extra, unroll, keys)

    return agent._replace(loss=loss)


def loss_noise_by_place(agent: Agent) -> Agent:
    def loss(params, extra, unroll, keys):
        noise = jax.random.normal(keys[0], unroll.reward.shape)
        return agent.loss(params, extra, unroll._replace(reward=unroll.reward + noise), keys)

    return agent._replace(loss=loss)


def extras_unnamed(agent: Agent) -> Agent:
    return agent._replace(extras=lambda: {})


def test_a_sound_agent_passes() -> None:
    check_agent(sound(), SPEC)


@pytest.mark.parametrize(
    ("spoil", "check", "complaint"),
    [
        (other_action_dtype, agent_kit.check_act, "the action must be int32"),
        (extras_unnamed, agent_kit.check_act, "extras"),
        (noise_by_place, agent_kit.check_noise, "its place in the batch"),
        (impure, agent_kit.check_noise, "act is not pure"),
        (answer_alone, agent_kit.check_act, "act must return"),
        (total_alone, agent_kit.check_loss, "loss returned a .*, no LossOutput"),
        (noise_when_greedy, agent_kit.check_noise, "greedy action depends on the key"),
        (draws_where_measured, agent_kit.check_noise, "rows that take the mode are drawn"),
        (measured_together, agent_kit.check_noise, "depends on the other rows"),
        (no_reset, agent_kit.check_first_rows, "not reset at a first row"),
        (mean_instead_of_sum, agent_kit.check_sums, "not a sum"),
        (loss_noise_by_place, agent_kit.check_sums, "the loss of an unroll depends on its place"),
        (borders_ignored, agent_kit.check_borders, "influence on the loss"),
        (no_reset_in_unrolls, agent_kit.check_borders, "state that entered a first row has an influence"),
        (infinite_at_extremes, agent_kit.check_extremes, "not finite"),
        (no_gradient, partial(agent_kit.check_learns, updates=10), "bandit is not learned"),
    ],
)
def test_a_broken_agent_is_told_what_is_broken(
    spoil: Callable[[Agent], Agent], check: Callable[[AgentUnderTest], None], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check(AgentUnderTest(spoil(sound()), SPEC))
