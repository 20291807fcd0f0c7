"""An agent whose arrays have another form than it said is refused before a run, in a sentence."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from aioseed.agents.agent import Agent, AgentPlugin, LearnerState, LossOutput, Unroll
from aioseed.agents.vtrace import agent as vtrace
from aioseed.errors import PluginError
from aioseed.host.acting import BuiltAgent, acting_of, build_agent, layout_of
from aioseed.host.forms import checked_agent
from aioseed.serving.inference import ActRows
from aioseed.specs import ArraySpec, discrete
from aioseed.training.config import TrainingConfig
from aioseed.training.device import find_devices
from aioseed.training.optimizer import make_optimizer
from aioseed.training.update import Update, compile_update, init_state
from aioseed.types import EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(5))


def sound() -> Agent:
    return build_agent({"name": "vtrace"}, {"name": "lstm", "hidden": [], "lstm_units": 4}, SPEC).agent


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overlap_steps": -1}, "mine:agent has overlap_steps -1, which must be a whole number, 0 or more"),
        ({"overlap_steps": 1.5}, "mine:agent has overlap_steps 1.5, which must be a whole number, 0 or more"),
        (
            {"initial_state": lambda: (jnp.zeros(4), 0.0)},
            "initial_state() of mine:agent has a float at [1], where every leaf must be an array",
        ),
        ({"initial_state": lambda: 0.0}, "initial_state() of mine:agent has a float, where every leaf must be"),
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


def listed_action(out, state):
    return out._replace(action=[0, 1]), state


def plain_extras(out, state):
    return out._replace(extras=jax.tree.map(lambda leaf: 0.0, out.extras)), state


def plain_state(out, state):
    return out, jax.tree.map(lambda leaf: 0.0, state)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_pair, "act must return (ActOutput, state after the rows)"),
        (real_numbers, "the action that act returned is float32[B], and int32[B] is needed"),
        (wide_action, "the action that act returned is int32[B, 1], and int32[B] is needed"),
        (more_extras, "act returned 2 arrays for the extras, where 1 are needed"),
        (half_state, "the state that act returned is float16[B, 4], and float32[B, 4] is needed"),
        (no_state, "act returned 0 arrays for the state, where 2 are needed"),
        (listed_action, "the action that act returned is a list, and an array is needed"),
        (plain_extras, "the extras that act returned is a float, and an array is needed"),
        (plain_state, "the state that act returned is a float, and an array is needed"),
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


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"kernel": 1}, "init must return a LearnerState, not a dict"),
        (
            LearnerState({"kernel": "text"}, ()),
            "the state that init returned has a str at .params['kernel'], where every leaf must be an array",
        ),
    ],
)
def test_what_init_returns_is_looked_at(state, said):
    spoilt = checked_agent(sound()._replace(init=lambda key: state), "mine:agent")
    with pytest.raises(PluginError) as caught:
        jax.jit(spoilt.init)(jax.random.key(0))
    assert said in str(caught.value)


def test_what_is_published_is_looked_at():
    spoilt = checked_agent(sound()._replace(published=lambda state: {"name": "mine"}), "mine:agent")
    with pytest.raises(PluginError, match=r"what published returned has a str at \['name'\], where every leaf must be"):
        spoilt.published(LearnerState((), ()))


def test_priorities_are_one_number_an_unroll():
    spoilt = checked_agent(sound()._replace(priorities=lambda unroll: unroll.reward[1:]), "mine:agent")
    unroll = Unroll(*[None] * len(Unroll._fields))._replace(reward=jnp.zeros((4, 3)))
    with pytest.raises(PluginError, match=r"priorities returned float32\[3, 3\], and float32\[3\] is needed"):
        spoilt.priorities(unroll)
    listed = checked_agent(sound()._replace(priorities=lambda unroll: [1.0] * 3), "mine:agent")
    with pytest.raises(PluginError, match=r"priorities returned a list, and float32\[3\] is needed"):
        listed.priorities(unroll)
    sound_one = checked_agent(sound()._replace(priorities=lambda unroll: unroll.reward[0]), "mine:agent")
    assert sound_one.priorities(unroll).shape == (3,)


def raising(output):
    raise KeyError("q")


def half_a_loss(output):
    return output.total, output.metrics


def loss_of_each(output):
    return output._replace(total=jnp.stack([output.total] * 2))


def loss_in_integers(output):
    return output._replace(total=output.total.astype(jnp.int32))


def count_of_each(output):
    return output._replace(count=jnp.stack([output.count] * 3))


def metric_of_each(output):
    return output._replace(metrics={"losses/value": jnp.zeros((4, 3))})


def plain_metric(output):
    return output._replace(metrics={"losses/value": 1.0})


def listed_metrics(output):
    return output._replace(metrics=[output.total])


def priority_of_each_row(output):
    return output._replace(aux={"priorities": jnp.zeros((4, 3))})


def one_priority(output):
    return output._replace(aux={"priorities": output.total})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            raising,
            f"loss of mine:agent raised KeyError: 'q', in line {raising.__code__.co_firstlineno + 1} of {__file__}",
        ),
        (half_a_loss, "loss must return a LossOutput"),
        (loss_of_each, "the total that loss returned is float32[2], and float32[] is needed"),
        (loss_in_integers, "the total that loss returned is int32[], and float32[] is needed"),
        (count_of_each, "the count that loss returned is float32[3], and float32[] is needed"),
        (metric_of_each, "metrics['losses/value'] that loss returned is float32[4, 3], and float32[] is needed"),
        (plain_metric, "metrics['losses/value'] that loss returned is a float, and float32[] is needed"),
        (listed_metrics, "the metrics that loss returned are a list, and a dict is needed"),
        (
            priority_of_each_row,
            "aux that loss returned has float32[4, 3], and every leaf needs one entry an unroll first",
        ),
        (one_priority, "aux that loss returned has float32[], and every leaf needs one entry an unroll first"),
    ],
)
def test_what_loss_answers_is_looked_at_where_it_is_compiled(spoil, said):
    agent = sound()
    spoilt = checked_agent(agent._replace(loss=lambda *arguments: spoil(agent.loss(*arguments))), "mine:agent")
    with pytest.raises(PluginError) as caught:
        compile_update_of(spoilt)
    assert said in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError) is (spoil is raising)


def test_aux_has_one_entry_an_unroll_of_whatever_shape():
    unroll = Unroll(*[None] * len(Unroll._fields))._replace(reward=jnp.zeros((4, 3)))
    for shape, fits in (((3,), True), ((3, 5), True), ((4,), False), ((), False)):
        output = LossOutput(jnp.zeros(()), jnp.ones(()), {}, {"priorities": jnp.zeros(shape)})
        agent = checked_agent(sound()._replace(loss=lambda *_, output=output: output), "mine:agent")
        if fits:
            assert agent.loss((), (), unroll, ()) is output
        else:
            with pytest.raises(PluginError, match="one entry an unroll first") as caught:
                agent.loss((), (), unroll, ())
            assert caught.value.group == "aioseed.agents"


def parameters_alone(state):
    return state.params


def more_state(state):
    return state._replace(extra={"target": state.params})


def half_parameters(state):
    return state._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state.params))


@pytest.mark.parametrize("part", ["after_update", "observe"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (parameters_alone, "{} must return a LearnerState"),
        (more_state, "the LearnerState that {} returned has other leaves than the one it was given"),
        (half_parameters, "that {} returned is float16["),
    ],
)
def test_a_state_that_cannot_take_the_place_of_the_one_before_is_refused(part, spoil, said):
    spoilt = checked_agent(sound()._replace(**{part: lambda state, _: spoil(state)}), "mine:agent")
    with pytest.raises(PluginError) as caught:
        compile_update_of(spoilt)
    assert said.format(part) in str(caught.value)


def test_what_is_raised_while_an_agent_is_built_is_told_with_its_line(monkeypatch):
    plugin = AgentPlugin(vtrace.config_type, lambda config, spec, network: {}["policy"])
    monkeypatch.setattr("aioseed.host.acting.load", lambda group, name: plugin)
    with pytest.raises(
        PluginError, match=r"build of mine:agent raised KeyError: 'policy', in line \d+ of .*test_forms"
    ):
        build_agent({"name": "mine:agent"}, {"name": "mlp"}, SPEC)


def test_what_a_library_raises_is_told_with_the_authors_line_and_what_no_author_wrote_without_one():
    def calls_a_library(key):
        return jnp.reshape(jnp.zeros(3), (2, 2))

    with pytest.raises(PluginError) as caught:
        checked_agent(sound()._replace(init=calls_a_library), "mine:agent").init(jax.random.key(0))
    assert str(caught.value.__cause__) in str(caught.value)
    assert f", in line {calls_a_library.__code__.co_firstlineno + 1} of {__file__} (" in str(caught.value)
    with pytest.raises(PluginError, match=r"init of mine:agent raised TypeError: [^/]* \(aioseed"):
        checked_agent(sound()._replace(init=int.__add__), "mine:agent").init(jax.random.key(0))


def test_an_error_of_ours_goes_on_as_it_is():
    ours = PluginError("the network cannot be used: mine", group="aioseed.nets")

    def fails(key):
        raise ours

    with pytest.raises(PluginError) as caught:
        checked_agent(sound()._replace(init=fails), "mine:agent").init(jax.random.key(0))
    assert caught.value is ours


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), JaxRuntimeError("RESOURCE_EXHAUSTED: 3")])
def test_that_memory_ran_out_is_no_mistake_of_an_agents_author(monkeypatch, error):
    def build(config, spec, network):
        raise error

    monkeypatch.setattr("aioseed.host.acting.load", lambda group, name: AgentPlugin(vtrace.config_type, build))
    with pytest.raises(type(error)) as caught:
        build_agent({"name": "mine:agent"}, {"name": "mlp"}, SPEC)
    assert caught.value is error


CONFIG = TrainingConfig(batch_unrolls=2)


@cache
def before_training():
    placement = find_devices(CONFIG.devices)
    return init_state(sound(), make_optimizer(CONFIG, 3), jax.random.key(0), placement), placement


def compile_update_of(agent):
    state, placement = before_training()
    update = Update(agent, make_optimizer(CONFIG, 3), SPEC.observation, CONFIG)
    compile_update(update, state, layout_of(BuiltAgent(agent, SPEC), 3), CONFIG, placement)
