"""An agent whose arrays have another form than it said is refused before a run, in a sentence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import Agent
from aioseed.errors import PluginError
from aioseed.host.acting import BuiltAgent, acting_of, build_agent
from aioseed.host.forms import checked_agent
from aioseed.serving.inference import ActRows
from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(5))


def sound() -> Agent:
    return build_agent({"name": "vtrace"}, {"name": "lstm", "hidden": [], "lstm_units": 4}, SPEC).agent


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overlap_steps": -1}, "mine:agent has overlap_steps -1, which must be 0 or more"),
        ({"initial_state": lambda: (jnp.zeros(4), 0.0)}, "has a float in its initial_state()"),
        ({"extras": lambda: {"v": 3.5}}, "has a float in its extras(), where every leaf must be an ArraySpec"),
    ],
)
def test_what_was_built_is_looked_at(changes, said):
    with pytest.raises(PluginError) as caught:
        checked_agent(sound()._replace(**changes), "mine:agent")
    assert said in str(caught.value)


def test_what_is_no_agent_is_refused():
    with pytest.raises(PluginError, match="mine:agent was built to a NoneType instead of an Agent"):
        checked_agent(None, "mine:agent")


def no_pair(out, state):
    return out


def real_numbers(out, state):
    return out._replace(action=out.action.astype(jnp.float32)), state


def wide_action(out, state):
    return out._replace(action=out.action[:, None]), state


def more_extras(out, state):
    return out._replace(extras={**out.extras, "more": out.action}), state


def half_state(out, state):
    return out, jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state)


def no_state(out, state):
    return out, ()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_pair, "act must return (ActOutput, state after the rows)"),
        (real_numbers, "the action that act returned is float32[B], and int32[B] is needed"),
        (wide_action, "the action that act returned is int32[B, 1], and int32[B] is needed"),
        (more_extras, "act returned 2 arrays for the extras, where 1 are needed"),
        (half_state, "the state that act returned is float16[B, 4], and float32[B, 4] is needed"),
        (no_state, "act returned 0 arrays for the state, where 2 are needed"),
    ],
)
def test_what_act_answers_is_looked_at_where_it_is_compiled(spoil, said):
    agent = sound()
    spoilt = agent._replace(act=lambda *arguments: spoil(*agent.act(*arguments)))
    rows = ActRows(
        *np.zeros((3, 2), np.uint32),
        flags=np.zeros(2, np.uint8),
        reward=np.zeros(2, np.float32),
        previous_action=np.zeros(2, np.int32),
        observation=(np.zeros((2, 3), np.float32),),
        evaluation=np.zeros(2, np.bool_),
    )
    acting = acting_of(BuiltAgent(spoilt, SPEC), greedy="never")
    state = [jnp.zeros((2, *jnp.shape(leaf))) for leaf in acting.initial_state]
    params = agent.published(jax.jit(agent.init)(jax.random.key(0)))
    with pytest.raises(PluginError) as caught:
        jax.jit(acting.act).lower(params, jax.random.key(0), state, rows)
    assert said in str(caught.value)
