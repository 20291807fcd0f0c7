"""The SAC agent keeps the contract, with and without memory, and each loss moves only its own parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from aioseed.agents.agent import LearnerState
from aioseed.agents.sac import SacConfig, agent
from aioseed.errors import ConfigError, SpaceError
from aioseed.nets.images import r2d2
from aioseed.nets.mlp import mlp
from aioseed.nets.network import Head, Network, reset_where_first
from aioseed.nets.recurrent import mlp_dueling_lstm, mlp_lstm
from aioseed.specs import ActionSpec, ArraySpec, discrete
from aioseed.testing.agent_kit import CHECKS, AgentUnderTest
from aioseed.types import EnvironmentSpec

BOX = ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, 0.5), high=(1.0, 3.0))
SPEC = EnvironmentSpec({"a": ArraySpec("float32", (3,)), "b": ArraySpec("uint8", ())}, BOX)
NETWORKS = {"mlp": partial(mlp, hidden=(16,)), "lstm": partial(mlp_lstm, hidden=(), lstm_units=8)}


@cache
def subject(name: str) -> AgentUnderTest:
    return AgentUnderTest(agent.build(SacConfig(), SPEC, NETWORKS[name]), SPEC)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_agent_keeps_the_contract(name: str, check: Callable[[AgentUnderTest], None]) -> None:
    check(subject(name))


@pytest.mark.parametrize(
    ("network", "observation"),
    [(mlp_dueling_lstm, SPEC.observation), (r2d2, ArraySpec("uint8", (84, 84, 4)))],
)
def test_networks_that_would_not_show_the_critics_the_action_are_refused(network, observation) -> None:
    with pytest.raises(ValueError, match="head 'critic' takes the action"):
        agent.build(SacConfig(), EnvironmentSpec(observation, BOX), network)


@pytest.mark.parametrize("layers", ["mlp", "lstm"])
def test_a_network_that_ignores_the_action_is_refused_in_one_sentence(layers) -> None:
    def blind(observation, action, heads) -> Network:
        return NETWORKS[layers](observation, action, {name: Head(head.size) for name, head in heads.items()})

    with pytest.raises(ConfigError, match="its critic does not look at NetworkInputs"):
        agent.build(SacConfig(), SPEC, blind)


def test_at_first_the_mode_is_about_the_middle_of_the_box() -> None:
    acted = subject("mlp")
    rows = acted.rows(np.random.default_rng(0), np.zeros(32, np.uint8))
    answer, _ = acted.act(rows, acted.fresh_state(), greedy=True)
    np.testing.assert_allclose(answer.action, np.tile([0, 1.75], (32, 1)), atol=0.1)


def test_a_critic_says_one_number_of_an_action_and_the_policy_does_not_see_it() -> None:
    asked = {}

    def recorded(observation, action, heads) -> Network:
        asked.update({name: (head.size, head.takes_action) for name, head in heads.items()})
        return NETWORKS["mlp"](observation, action, heads)

    agent.build(SacConfig(), SPEC, recorded)
    assert asked == {"critic": (1, True), "policy": (4, False)}


def remembering(observation, action, heads) -> Network:
    """Make a network that compiles fast: it adds half of the observation before to the one now."""
    ((name, head),) = heads.items()

    def init(key):
        return jax.random.normal(key, (5 if head.takes_action else 3, head.size))

    def step(params, state, inputs):
        state = inputs.observation["a"] + 0.5 * reset_where_first(jnp.zeros(3), state, inputs.first)
        seen = jnp.concatenate([state, inputs.action], axis=-1) if head.takes_action else state
        return {name: seen @ params}, state

    def unroll(params, state, inputs):
        def row(state, now):
            outputs, state = step(params, state, now)
            return state, outputs

        state, outputs = jax.lax.scan(row, state, inputs)
        return outputs, state

    return Network(init, lambda: jnp.zeros(3), step, unroll)


def test_the_stored_memory_of_the_critics_is_the_one_that_entered_the_row() -> None:
    """What the critics say of eight steps is what they say of the first four and, from the state then, of the rest."""
    # Hardly any noise, so that the targets, too, can be compared between unrolls of different lengths.
    still = SacConfig(target_entropy=None, entropy_cost=1e-9, action={"initial_std": 2e-6, "min_std": 1e-6})
    acted, generator = AgentUnderTest(agent.build(still, SPEC, remembering), SPEC), np.random.default_rng(0)
    whole = acted.unroll(generator)
    states = [acted.fresh_state()]
    loss = jax.jit(acted.agent.loss)
    for t in range(4):
        rows = acted.rows(generator, np.asarray(whole.flags[t]), sequence=t)
        rows = rows._replace(
            observation={name: leaf[t] for name, leaf in whole.observation.items()},
            reward=whole.reward[t],
            previous_action=whole.previous_action[t],
        )
        states.append(acted.act(rows, states[-1])[1])

    def told(start: int, stop: int, state: object) -> np.ndarray:
        rows = jax.tree.map(lambda leaf: leaf[start:stop], whole._replace(initial_state=()))
        found = loss(*acted.learner, rows._replace(initial_state=state), acted.keys)
        return np.array([found.metrics["critic/value"], found.metrics["critic/target"]])

    all_steps, first_half = told(0, 9, states[0]), told(0, 5, states[0])
    np.testing.assert_allclose(first_half + told(4, 9, states[4]), all_steps, rtol=1e-4)
    assert np.all(np.abs(first_half + told(4, 9, states[0]) - all_steps) > 1e-3 * np.abs(all_steps)), "memory matters"


def moved(config: SacConfig, steps: int) -> float:
    """Return where a target at 0 is after `steps` updates, the critics being at 1."""
    built = agent.build(config, SPEC, partial(mlp, hidden=(2,)))
    params = jax.eval_shape(built.init, jax.random.key(0)).params
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    state = LearnerState(ones, {"critics": jax.tree.map(jnp.zeros_like, ones["critics"])})
    after_update = jax.jit(built.after_update)
    for step in range(1, steps + 1):
        state = after_update(state, jnp.int32(step))
    values = {float(number) for leaf in jax.tree.leaves(state.extra) for number in np.ravel(leaf)}
    assert len(values) == 1 and all(np.all(leaf == 1) for leaf in jax.tree.leaves(state.params["critics"]))
    return values.pop()


def test_polyak_is_the_share_of_the_old_target() -> None:
    assert moved(SacConfig(polyak=0.0), 1) == 1, "0 copies"
    assert moved(SacConfig(polyak=1.0), 3) == 0, "1 freezes"
    assert moved(SacConfig(polyak=0.9), 1) == pytest.approx(0.1)
    assert moved(SacConfig(polyak=0.9), 2) == pytest.approx(1 - 0.9**2)


def test_targets_move_only_when_they_are_due() -> None:
    config = SacConfig(polyak=0.5, update_target_every=3)
    assert [moved(config, steps) for steps in (2, 3, 5, 6)] == [0, 0.5, 0.5, 0.75]
    assert moved(SacConfig(update_target_every=2**31 - 1), 2) == 0


def test_targets_begin_as_the_critics_and_no_two_critics_are_alike() -> None:
    learner = subject("mlp").learner
    for critics, target in zip(
        jax.tree.leaves(learner.params["critics"]), jax.tree.leaves(learner.extra["critics"]), strict=True
    ):
        np.testing.assert_array_equal(critics, target)
    kernels = [leaf for leaf in jax.tree.leaves(learner.params["critics"]) if leaf.ndim == 3]
    assert kernels and all(np.all(kernel[0] != kernel[1]) for kernel in kernels)


def test_the_temperature_is_a_parameter_only_where_it_is_adjusted() -> None:
    fixed = agent.build(SacConfig(target_entropy=None), SPEC, NETWORKS["mlp"])
    assert set(jax.eval_shape(fixed.init, jax.random.key(0)).params) == {"policy", "critics"}
    assert np.exp(subject("mlp").learner.params["entropy_cost"]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("action", "complaint"),
    [(discrete(3), "SAC takes Box actions"),
     (ActionSpec("box", ArraySpec("float32", (1,)), low=(0.0,), high=(np.inf,)), "needs finite bounds")],
)  # fmt: skip
def test_other_actions_are_refused_in_one_sentence(action: ActionSpec, complaint: str) -> None:
    with pytest.raises(SpaceError, match=complaint):
        agent.build(SacConfig(), EnvironmentSpec(ArraySpec("float32", (4,)), action), mlp)


@pytest.mark.parametrize(
    "wrong",
    [{"polyak": 1.1}, {"entropy_cost": 0}, {"target_entropy": "low"}, {"action": {"squash": "clip"}},
     {"update_target_every": 2**31}],
)  # fmt: skip
def test_a_wrong_option_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SacConfig.model_validate(wrong)


def test_defaults_are_seeds() -> None:
    seeds = {"discount": 0.99, "entropy_cost": 0.01, "entropy_cost_adjustment_speed": 1.0, "polyak": 0.9,
             "update_target_every": 1, "max_abs_reward": 0.0, "critics": 2}  # fmt: skip
    assert SacConfig().model_dump(include=set(seeds)) == seeds
