from __future__ import annotations

import math
import sys
import textwrap

import jax
import numpy as np
import pytest

from aioseed.errors import ConfigError, PluginError, SpaceError
from aioseed.host.acting import acting_of, build_agent, layout_of
from aioseed.serving.inference import ActRows
from aioseed.specs import ActionSpec, ArraySpec, discrete
from aioseed.types import EnvironmentSpec

SPEC = EnvironmentSpec({"b": ArraySpec("float32", (3,)), "a": ArraySpec("uint8", (2,))}, discrete(5))
AGENT, NETWORK = {"name": "vtrace"}, {"name": "mlp", "hidden": [8]}


def test_an_agent_becomes_leaves_in_the_order_of_the_specs():
    built = build_agent(AGENT, {"name": "lstm", "lstm_units": 4}, SPEC)
    layout = layout_of(built, 16)
    assert layout.observation == (ArraySpec("uint8", (2,)), ArraySpec("float32", (3,)))
    assert (layout.action, layout.rows) == (SPEC.action.array, 17)
    assert layout.state == (ArraySpec("float32", (4,)),) * 2
    assert [np.shape(leaf) for leaf in acting_of(built, greedy="never").initial_state] == [(4,), (4,)]


def test_transforms_stand_in_front_and_their_state_is_the_recurrent_state():
    sections = [{"name": "frame_stack", "n": 3, "only": ["a"]}, {"name": "normalize", "only": ["b"]}]
    built = build_agent(AGENT, NETWORK, SPEC, sections)
    layout = layout_of(built, 16)
    assert layout.observation == (ArraySpec("uint8", (2,)), ArraySpec("float32", (3,)))  # what is sent
    assert layout.state == (ArraySpec("uint8", (2, 2)),)
    shapes = jax.eval_shape(built.agent.init, jax.random.key(0)).params
    assert {leaf.shape[0] for leaf in jax.tree.leaves(shapes) if len(leaf.shape) == 2} == {3 * 2 + 3, 8}


@pytest.mark.parametrize(
    ("section", "error", "said"),
    [
        ({"name": "frame_stak"}, PluginError, 'there is no transform "frame_stak" (did you mean "frame_stack"?)'),
        ({"name": "frame_stack", "k": 4}, ConfigError, "transforms.0.k is not a known key"),
        ({"name": "frame_stack", "n": 0}, ConfigError, "transforms.0: n must be a positive integer"),
        ({"name": "builtins:dict"}, ConfigError, "transforms.0"),
    ],
)
def test_transforms_that_cannot_be_built_are_said_in_a_sentence(section, error, said):
    with pytest.raises(error) as caught:
        build_agent(AGENT, NETWORK, SPEC, [section])
    assert said in str(caught.value)


STRANGE = """
    from __future__ import annotations
    from aioseed.nets import transforms

    called = []

    def unsaid(*words, **options): called.append(words)
    def other(*words) -> list[Transform]: called.append(words)
    def said(spec) -> transforms.Transform: return transforms.chain(spec, [])
"""


@pytest.mark.parametrize("name", ["unsaid", "other"])
def test_what_does_not_say_that_it_makes_a_network_or_a_transform_is_never_called(tmp_path, monkeypatch, name):
    """A checkpoint names functions, and gives them options: one from elsewhere would have had subprocess.run run."""
    (tmp_path / "strange_makers.py").write_text(textwrap.dedent(STRANGE))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strange_makers", raising=False)
    section = {"name": f"strange_makers:{name}"}
    with pytest.raises(
        ConfigError, match=f"{name} does not say that it returns a Network, and is not called: write ->"
    ):
        build_agent(AGENT, section, SPEC)
    with pytest.raises(ConfigError, match=f"{name} does not say that it returns a Transform"):
        build_agent(AGENT, NETWORK, SPEC, [section])
    assert build_agent(AGENT, NETWORK, SPEC, [{"name": "strange_makers:said"}]).spec == SPEC
    assert sys.modules["strange_makers"].called == []


@pytest.mark.parametrize(("sent", "cut"), [("int64", "int32"), ("uint64", "uint32"), ("float64", "float32")])
def test_an_observation_that_jax_would_cut_is_refused(sent, cut):
    spec = SPEC._replace(observation={"a": ArraySpec("float32", (2,)), "b": ArraySpec(sent, (3,))})
    said = rf"observation\.b is {sent}, of which JAX would keep {cut}: .*JAX_ENABLE_X64=1"
    with pytest.raises(SpaceError, match=said):
        build_agent(AGENT, NETWORK, spec)
    with jax.enable_x64(True):
        assert layout_of(build_agent(AGENT, NETWORK, spec), 16).observation[1] == ArraySpec(sent, (3,))


@pytest.mark.parametrize("network", ["mlp", "lstm", "dqn", "impala-deep"])
def test_networks_compute_in_32_bits_also_where_jax_has_64(network):
    spec = SPEC._replace(observation=ArraySpec("uint8", (84, 84, 4)))
    with jax.enable_x64(True):
        built = build_agent(AGENT, {"name": network}, spec)
        params = jax.eval_shape(built.agent.init, jax.random.key(0)).params
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_a_feed_forward_agent_has_no_state():
    built = build_agent(AGENT, NETWORK, SPEC)
    assert layout_of(built, 16).state == () and acting_of(built, greedy="always").initial_state == []


def box(size: int) -> ActionSpec:
    return ActionSpec("box", ArraySpec("float32", (size,)), low=(-1.0,) * size, high=(1.0,) * size)


@pytest.mark.parametrize(
    ("agent", "action", "measured"),
    [
        ("vtrace", discrete(50), "mode"),
        ("vtrace", box(2), "mode"),
        ("sac", box(2), "mode"),
        ("ppo", discrete(50), "mode"),
        ("ppo", box(2), "mode"),
        ("r2d2", discrete(50), ""),
    ],
)
def test_rows_of_the_role_evaluate_take_the_mode_beside_training_alone(agent, action, measured):
    spec = EnvironmentSpec(ArraySpec("float32", (3,)), action)
    section = {"name": agent} | ({"exploration": {"evaluation_epsilon": 1.0}} if agent == "r2d2" else {})
    built = build_agent(section, NETWORK, spec)
    params = built.agent.published(jax.jit(built.agent.init)(jax.random.key(0)))
    evaluation = np.arange(32) % 2 == 0

    def actions(greedy, evaluation):
        rows = ActRows(
            *np.arange(32, dtype=np.uint32)[None].repeat(3, axis=0),
            flags=np.zeros(32, np.uint8),
            reward=np.zeros(32, np.float32),
            previous_action=np.zeros((32, *action.array.shape), action.array.numpy_dtype),
            observation=(np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32),),
            evaluation=evaluation,
        )
        return np.asarray(jax.jit(acting_of(built, greedy=greedy).act)(params, jax.random.key(1), [], rows)[0])

    drawn, mode, training = (actions(greedy, evaluation) for greedy in ("never", "always", "evaluating"))
    np.testing.assert_array_equal(training[~evaluation], drawn[~evaluation])
    np.testing.assert_array_equal(training[evaluation], (mode if measured else drawn)[evaluation])
    assert np.mean(drawn == mode) < 0.9


@pytest.mark.parametrize(
    ("agent", "network", "error", "said"),
    [
        ({"name": "vtraec"}, NETWORK, PluginError, 'there is no agent "vtraec" (did you mean "vtrace"?)'),
        (AGENT, {"name": "mpl"}, PluginError, 'there is no network "mpl" (did you mean "mlp"?)'),
        ({"name": "vtrace", "discout": 0.9}, NETWORK, ConfigError, "agent.discout is not a known key (did you mean"),
        ({"name": "vtrace", "discount": 2}, NETWORK, ConfigError, "agent.discount is 2"),
        (
            AGENT,
            {"name": "mlp", "hiden": [8]},
            ConfigError,
            'network.hiden is not a known key (did you mean "hidden"?)',
        ),
        (AGENT, {"name": "mlp", "activation": "sine"}, ConfigError, "network"),
        ({"name": "json:loads"}, NETWORK, ConfigError, "agent.name: json:loads is not an AgentPlugin"),
        (AGENT, {"name": "math:pi"}, ConfigError, "network.name: math:pi is not callable"),
        (AGENT, {"name": "builtins:dict"}, ConfigError, "network"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(agent, network, error, said):
    with pytest.raises(error) as caught:
        build_agent(agent, network, SPEC)
    assert said in str(caught.value)


def test_actions_that_the_agent_cannot_take_are_said_so():
    box = ActionSpec("box", ArraySpec("float32", (1,)), low=(-math.inf,), high=(1.0,))
    with pytest.raises(SpaceError, match="bound"):
        build_agent(AGENT, NETWORK, SPEC._replace(action=box))
