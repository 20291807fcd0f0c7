"""The V-trace agent keeps the contract, and what it learns from is what it did."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from aioseed.agents.agent import ActInput
from aioseed.agents.transitions import scaled_reward, transitions
from aioseed.agents.vtrace import VtraceConfig, agent
from aioseed.errors import SpaceError
from aioseed.nets.mlp import mlp
from aioseed.nets.recurrent import mlp_lstm
from aioseed.specs import ActionSpec, ArraySpec, discrete, multi_discrete
from aioseed.testing.agent_kit import CHECKS, AgentUnderTest
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentSpec

VECTOR = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2))
TREE = EnvironmentSpec(
    {"pixels": ArraySpec("uint8", (2, 2)), "speed": (ArraySpec("float32", ()), ArraySpec("int32", (2,)))},
    multi_discrete((3, 2)),
)
BOX = EnvironmentSpec(
    ArraySpec("float32", (4,)), ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, 0.5), high=(1.0, 3.0))
)
CONFIG = VtraceConfig(entropy_cost=0.01, reward_scale=0.5)
CLIPPED = VtraceConfig(entropy_cost=0.01, reward_scale=0.5, action={"squash": "clip", "std": "exp"})


SUBJECTS = {
    "mlp": (CONFIG, VECTOR, partial(mlp, hidden=(16,))),
    "lstm": (CONFIG, VECTOR, partial(mlp_lstm, hidden=(), lstm_units=8)),
    "tree": (CONFIG, TREE, partial(mlp, hidden=(16,))),
    "box": (CONFIG, BOX, partial(mlp_lstm, hidden=(), lstm_units=8)),
    "box, clipped": (CLIPPED, BOX, partial(mlp, hidden=(16,))),
}


@cache
def subject(name: str) -> AgentUnderTest:
    config, spec, network = SUBJECTS[name]
    return AgentUnderTest(agent.build(config, spec, network), spec)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_agent_keeps_the_contract(name: str, check: Callable[[AgentUnderTest], None]) -> None:
    check(subject(name))


@pytest.mark.parametrize("name", ["lstm", "box"])
def test_unrolling_its_own_steps_gives_the_probabilities_with_which_it_acted(name: str) -> None:
    """Across borders, with memory and previous actions: no importance weight differs from 1, no KL from 0."""
    acted = subject(name)
    params = jax.tree.map(lambda leaf: leaf * 3, acted.learner.params)
    learner = acted.learner._replace(params=params)
    unroll = acted.unroll(np.random.default_rng(0), learner=learner)
    assert np.sum(np.asarray(unroll.flags[1:]) & FIRST) > 20
    found = acted.gradient(unroll, learner)
    assert np.abs(found.metrics["policy/kl"]) < 1e-3
    other = acted.gradient(unroll._replace(previous_action=1 - unroll.previous_action), learner)
    assert np.abs(other.metrics["policy/kl"]) > 1e-3, "the previous action does matter to this network"


def test_greedy_takes_the_mode_and_sampling_follows_the_uniforms_of_each_step() -> None:
    built = agent.build(CONFIG, VECTOR, partial(mlp, hidden=(8,)))
    learner = jax.jit(built.init)(jax.random.key(0))
    rows = ActInput(
        observation=jnp.ones((4096, 4)),
        reward=jnp.zeros(4096),
        flags=jnp.zeros(4096, jnp.uint8),
        previous_action=jnp.zeros(4096, jnp.int32),
        slot=jnp.arange(4096),
        epoch_low=jnp.zeros(4096, jnp.uint32),
        sequence=jnp.zeros(4096, jnp.uint32),
        evaluation=jnp.zeros(4096, jnp.bool_),
        takes_mode=jnp.zeros(4096, jnp.bool_),
    )
    act = jax.jit(built.act, static_argnums=4)
    sampled, _ = act(learner.params, jax.random.key(1), (), rows, False)
    greedy, _ = act(learner.params, jax.random.key(1), (), rows, True)
    probability_of_0 = float(np.exp(sampled.extras["behaviour_log_prob"][np.asarray(sampled.action) == 0][0]))
    assert abs(np.mean(sampled.action == 0) - probability_of_0) < 4 * np.sqrt(0.25 / 4096)
    assert set(np.asarray(greedy.action)) == {int(probability_of_0 < 0.5)}

    some = np.arange(4096) % 3 == 0
    mixed, _ = act(learner.params, jax.random.key(1), (), rows._replace(takes_mode=jnp.asarray(some)), False)
    for name, found in {"action": mixed.action, **mixed.extras}.items():
        wanted, drawn = ({"action": answer.action, **answer.extras}[name] for answer in (greedy, sampled))
        for leaf, its, other in zip(*map(jax.tree.leaves, (found, wanted, drawn)), strict=True):
            np.testing.assert_array_equal(leaf, np.where(some, its, other))


@pytest.mark.parametrize("name", ["mlp", "tree"])
def test_at_first_all_actions_are_about_equally_likely(name: str) -> None:
    acted = subject(name)
    answer, _ = acted.act(acted.rows(np.random.default_rng(0), np.zeros(32, np.uint8)), acted.fresh_state())
    even = -np.log(acted.spec.action.sizes).sum()
    np.testing.assert_allclose(answer.extras["behaviour_log_prob"], even, atol=0.1)


@pytest.mark.parametrize("name", ["box", "box, clipped"])
def test_at_first_the_mode_is_about_the_middle_of_a_box(name: str) -> None:
    acted = subject(name)
    rows = acted.rows(np.random.default_rng(0), np.zeros(32, np.uint8))
    answer, _ = acted.act(rows, acted.fresh_state(), greedy=True)
    np.testing.assert_allclose(answer.action, np.tile([0, 1.75], (32, 1)), atol=0.1)


def test_rewards_are_scaled_first_and_clipped_then() -> None:
    rewards = jnp.array([-30.0, 3.0, 30.0])
    np.testing.assert_allclose(scaled_reward(VtraceConfig(reward_scale=0.1), rewards), [-3, 0.3, 3], rtol=1e-6)
    clipped = scaled_reward(VtraceConfig(reward_scale=0.1, max_abs_reward=1), rewards)
    np.testing.assert_allclose(clipped, [-1, 0.3, 1], rtol=1e-6)


def test_flags_of_the_row_after_say_what_a_transition_is() -> None:
    flags = jnp.array([FIRST, 0, TERMINATED, FIRST, TRUNCATED, FIRST], jnp.uint8)[:, None]
    found = transitions(VtraceConfig(discount=0.5), jnp.arange(6.0)[:, None], flags)
    np.testing.assert_array_equal(found.rewards[:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found.valid[:, 0], [True, True, False, True, False])
    np.testing.assert_array_equal(found.discounts[found.valid], [0.5, 0, 0.5])


def test_the_entropy_cost_is_a_parameter_only_where_it_is_adjusted() -> None:
    fixed = agent.build(VtraceConfig(), VECTOR, mlp)
    assert set(jax.eval_shape(fixed.init, jax.random.key(0)).params) == {"network"}
    adjusted = agent.build(VtraceConfig(target_entropy=0.5, entropy_cost=0.01), VECTOR, mlp)
    params = jax.jit(adjusted.init)(jax.random.key(0)).params
    np.testing.assert_allclose(np.exp(10 * params["entropy_cost"]), 0.01, rtol=1e-5)


def test_a_box_without_bounds_is_refused() -> None:
    box = ActionSpec("box", ArraySpec("float32", (1,)), low=(-np.inf,), high=(1.0,))
    with pytest.raises(SpaceError, match="needs finite bounds"):
        agent.build(CONFIG, EnvironmentSpec(ArraySpec("float32", (4,)), box), mlp)


@pytest.mark.parametrize(
    "wrong",
    [{"discont": 0.9}, {"discount": 1.1}, {"clip_rho": 0}, {"entropy_cost": float("nan")},
     {"target_entropy": 1.0, "entropy_cost": 0.0}],
)  # fmt: skip
def test_a_wrong_option_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        VtraceConfig(**wrong)


def test_options_cannot_be_changed_later_and_defaults_are_seeds() -> None:
    config = VtraceConfig()
    with pytest.raises(ValidationError):
        config.discount = 0.5
    seeds = {"discount": 0.99, "lambda_": 1.0, "entropy_cost": 0.00025, "baseline_cost": 0.5, "kl_cost": 0.0}
    assert config.model_dump(include=set(seeds)) == seeds
