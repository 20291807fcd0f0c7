"""The R2D2 agent keeps the contract; its exploration, burn-in, target network and priorities do what they say."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from aioseed.agents.agent import ActInput, LearnerState, LossOutput
from aioseed.agents.r2d2 import R2d2Config, agent
from aioseed.agents.r2d2.config import ExplorationConfig
from aioseed.agents.r2d2.exploration import epsilons, van_der_corput
from aioseed.agents.r2d2.loss import Suffix, r2d2_loss, suffix_of, td_errors
from aioseed.agents.transitions import Transitions
from aioseed.errors import SpaceError
from aioseed.nets.mlp import mlp
from aioseed.nets.recurrent import mlp_dueling_lstm
from aioseed.ops.value_rescaling import unrescale
from aioseed.specs import ArraySpec, discrete, multi_discrete
from aioseed.testing.agent_kit import CHECKS, AgentUnderTest
from aioseed.types import FIRST, TERMINATED, EnvironmentSpec

VECTOR = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(3))
KEYS = jax.random.split(jax.random.key(5), 32)
CONFIG = R2d2Config(burn_in_steps=3, n_steps=3)
SUBJECTS = {
    "mlp": partial(mlp, hidden=(16,)),
    "dueling_lstm": partial(mlp_dueling_lstm, hidden=(), lstm_units=8, dueling_units=8),
}


@cache
def subject(name: str) -> AgentUnderTest:
    return AgentUnderTest(agent.build(CONFIG, VECTOR, SUBJECTS[name]), VECTOR)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_agent_keeps_the_contract(name: str, check: Callable[[AgentUnderTest], None]) -> None:
    check(subject(name))


def test_defaults_are_seeds() -> None:
    config = R2d2Config()
    seeds = {
        "discount": 0.997, "n_steps": 5, "burn_in_steps": 40, "rescaling_epsilon": 1e-3, "target_update_every": 2500,
        "priority_max_share": 0.9,
    }  # fmt: skip
    assert config.model_dump(include=set(seeds)) == seeds
    assert config.exploration.evaluation_epsilon == 1e-3


def test_van_der_corput_mirrors_the_bits() -> None:
    found = np.asarray(jax.jit(van_der_corput)(jnp.arange(9, dtype=jnp.uint32)))
    np.testing.assert_array_equal(found, [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8, 1 / 16])
    assert np.all(van_der_corput(jnp.uint32([2**32 - 1, 2**31])) < 1)
    numbers = np.random.default_rng(0).integers(2**24, size=100, dtype=np.uint32)
    mirrored = [int(f"{number:032b}"[::-1], 2) / 2**32 for number in numbers.tolist()]
    np.testing.assert_array_equal(van_der_corput(jnp.asarray(numbers)), mirrored)


def test_the_lowest_slots_cover_the_ladder_and_nobody_changes_when_others_come() -> None:
    few, many = (np.asarray(epsilons(ExplorationConfig(), jnp.arange(n), jnp.zeros(n, bool))) for n in (16, 1024))
    np.testing.assert_array_equal(few, many[:16])
    exponents = np.sort(np.log(few) / np.log(0.4))
    np.testing.assert_allclose(exponents, 1 + 7 * np.arange(16) / 16, rtol=1e-4)


def test_a_ladder_of_fixed_size_is_seeds_and_evaluation_has_its_own_epsilon() -> None:
    found = epsilons(ExplorationConfig(ladder_size=10), jnp.arange(11), jnp.arange(11) == 5)
    wanted = 0.4 ** np.linspace(1, 8, 10)
    wanted[5] = 1e-3
    np.testing.assert_allclose(found, [*wanted, wanted[0]], rtol=1e-5)
    for size, exponents in ((1, [1, 1, 1]), (2, [1, 8, 1])):
        small = epsilons(ExplorationConfig(ladder_size=size), jnp.arange(3), jnp.zeros(3, bool))
        np.testing.assert_allclose(small, 0.4 ** np.array(exponents), rtol=1e-5)


def rows_of(count: int, *, evaluation: bool = False) -> ActInput:
    return ActInput(
        observation=jnp.ones((count, 4)),
        reward=jnp.zeros(count),
        flags=jnp.zeros(count, jnp.uint8),
        previous_action=jnp.zeros(count, jnp.int32),
        slot=jnp.zeros(count, jnp.uint32),
        epoch_low=jnp.zeros(count, jnp.uint32),
        sequence=jnp.arange(count, dtype=jnp.uint32),
        evaluation=jnp.full(count, evaluation),
        takes_mode=jnp.full(count, evaluation),
    )


def test_slot_0_acts_at_random_in_0_4_of_its_steps_and_hardly_ever_in_evaluation() -> None:
    built = agent.build(CONFIG, VECTOR, SUBJECTS["mlp"])
    act, params = jax.jit(built.act, static_argnums=4), jax.jit(built.init)(jax.random.key(0)).params
    answer, _ = act(params, jax.random.key(1), (), rows_of(10_000), False)
    best = int(np.argmax(answer.extras["q_values"][0]))
    # A random action is the best one in a third of the cases.
    assert abs(np.mean(np.asarray(answer.action) != best) - 0.4 * 2 / 3) < 0.02
    assert set(np.asarray(answer.action)) == {0, 1, 2}
    calm, _ = act(params, jax.random.key(1), (), rows_of(10_000, evaluation=True), False)
    assert 0 < np.mean(np.asarray(calm.action) != best) < 0.003
    greedy, _ = act(params, jax.random.key(1), (), rows_of(100), True)
    assert set(np.asarray(greedy.action)) == {best}


def test_no_gradient_flows_into_the_burn_in_but_its_state_does_matter() -> None:
    found = subject("dueling_lstm")
    unroll = found.unroll(np.random.default_rng(0), flags=np.zeros((found.steps + 1, 32), np.uint8))
    extra = found.learner.extra

    def total(params, observation):
        return found.agent.loss(params, extra, unroll._replace(observation=observation), KEYS).total

    by_params, by_observation = jax.jit(jax.grad(total, argnums=(0, 1)))(found.learner.params, unroll.observation)
    assert not np.any(by_observation[: CONFIG.burn_in_steps])
    assert np.any(by_observation[CONFIG.burn_in_steps])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(by_params))
    moved = np.array(unroll.observation)
    moved[: CONFIG.burn_in_steps] += 1
    assert abs(found.gradient(unroll._replace(observation=moved)).total - found.gradient(unroll).total) > 1e-6


def test_rows_of_the_burn_in_are_not_learned_from() -> None:
    found = subject("mlp")
    unroll = found.unroll(np.random.default_rng(0))
    other = np.array(unroll.reward)
    other[: CONFIG.burn_in_steps + 1] += 100
    assert found.gradient(unroll._replace(reward=other)).total == found.gradient(unroll).total


def test_importance_weights_an_unroll_and_the_count_is_that_of_unrolls() -> None:
    found = subject("mlp")
    unroll = found.unroll(np.random.default_rng(0))
    weights = np.linspace(0, 1, 32, dtype=np.float32)
    assert found.gradient(unroll).count == 32
    total = found.gradient(unroll._replace(importance=weights)).total
    each = [found.gradient(unroll._replace(importance=np.eye(32, dtype=np.float32)[b])).total for b in range(32)]
    np.testing.assert_allclose(total, np.dot(weights, each), rtol=1e-5)
    assert each[0] != each[1]


def test_the_target_network_follows_when_it_is_due() -> None:
    hard = agent.build(R2d2Config(target_update_every=3), VECTOR, SUBJECTS["mlp"])
    soft = agent.build(R2d2Config(target_update_every=1, target_update_share=0.25), VECTOR, SUBJECTS["mlp"])
    state = jax.jit(hard.init)(jax.random.key(0))
    moved = LearnerState(jax.tree.map(lambda leaf: leaf + 1, state.params), state.extra)

    def distance(made, step: int) -> float:
        followed = jax.jit(made.after_update)(moved, jnp.int32(step))
        apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), followed.params["network"], followed.extra["target"])
        return max(jax.tree.leaves(apart))

    np.testing.assert_allclose([distance(hard, step) for step in (2, 3, 4)], [1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(distance(soft, 1), 0.75, atol=1e-6)
    rare = agent.build(R2d2Config(target_update_every=2**31 - 1), VECTOR, SUBJECTS["mlp"])
    np.testing.assert_allclose([distance(rare, step) for step in (2**31 - 2, 2**31 - 1)], [1, 0], atol=1e-6)


def test_new_and_first_priorities_agree_where_the_target_network_is_the_one_that_acted() -> None:
    found = subject("dueling_lstm")
    unroll = found.unroll(np.random.default_rng(1))
    new = jax.jit(found.agent.loss)(*found.learner, unroll, KEYS).aux["priorities"]
    np.testing.assert_allclose(jax.jit(found.agent.priorities)(unroll), new, rtol=1e-3, atol=1e-4)
    assert np.all(new > 0) and new.shape == (32,)


def test_td_errors_are_those_of_a_literal_walk() -> None:
    """In float64 and step by step: burn-in cut off, double Q, n-step sums that stop at borders, h around it all."""
    generator = np.random.default_rng(2)
    found = subject("mlp")
    unroll = found.unroll(generator)
    rows = suffix_of(CONFIG, unroll.reward, unroll.flags, unroll.action)
    reward, flags, action = (
        np.asarray(column)[CONFIG.burn_in_steps :] for column in (unroll.reward, unroll.flags, unroll.action)
    )
    online, target = (jnp.asarray(generator.normal(size=(*reward.shape, 3)), jnp.float32) for _ in range(2))
    errors = jax.jit(partial(td_errors, CONFIG))(rows, online, target)
    values = np.asarray(unrescale(target, 1e-3), float)
    steps = len(reward) - 1
    for b in range(32):
        for t in range(steps):
            if flags[t + 1, b] & FIRST:
                assert not errors.valid[t, b] and errors.td[t, b] == 0
                continue
            total, weight, row = 0.0, 1.0, t
            while row < steps and row < t + CONFIG.n_steps and not flags[row + 1, b] & FIRST:
                total += weight * float(reward[row + 1, b])
                weight *= 0.0 if flags[row + 1, b] & TERMINATED else CONFIG.discount
                row += 1
            total += weight * values[row, b, int(np.argmax(online[row, b]))]
            wanted = np.sign(total) * (np.sqrt(abs(total) + 1) - 1) + 1e-3 * total
            np.testing.assert_allclose(
                errors.td[t, b], wanted - float(online[t, b, int(action[t, b])]), rtol=1e-4, atol=1e-4
            )


def test_of_an_unroll_with_one_valid_step_that_step_is_the_mean_and_one_without_adds_nothing() -> None:
    """Nothing is paid and Q is 1, but NaN in the rows that lead nowhere: the only TD error is -1."""
    valid = jnp.array([[True, False], [False, False], [False, False]])
    nothing = jnp.zeros((3, 2))
    rows = Suffix(Transitions(nothing, nothing, valid), jnp.zeros((3, 2), jnp.int32))
    online = jnp.where(jnp.concatenate([valid, valid[:1]])[..., None], jnp.ones(3), jnp.nan)

    def loss(online: jax.Array) -> LossOutput:
        return r2d2_loss(CONFIG, rows, online, jnp.zeros((4, 2, 3)), jnp.ones(2))

    found, gradient = jax.jit(lambda online: (loss(online), jax.grad(lambda q: loss(q).total)(online)))(online)
    assert (float(found.total), float(found.count)) == (0.5, 2)
    assert float(found.metrics["q/td_error"]) == 1
    np.testing.assert_allclose(found.metrics["q/mean"], unrescale(jnp.float32(1), 1e-3), rtol=1e-6)
    np.testing.assert_allclose(found.aux["priorities"], [1, 0], rtol=1e-6)
    wanted = np.zeros((4, 2, 3))
    wanted[0, 0, 0] = 1
    np.testing.assert_array_equal(gradient, wanted)


def test_actions_that_are_not_one_choice_are_refused() -> None:
    spec = EnvironmentSpec(ArraySpec("float32", (4,)), multi_discrete((3, 2)))
    with pytest.raises(SpaceError, match="one discrete action"):
        agent.build(CONFIG, spec, SUBJECTS["mlp"])


@pytest.mark.parametrize(
    "wrong",
    [{"n_steps": 0}, {"target_update_share": 0}, {"exploration": {"first_exponent": 9.0}}, {"gamma": 1},
     {"target_update_every": 2**31}, {"exploration": {"ladder_size": 2**31}}],
)  # fmt: skip
def test_a_wrong_option_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        R2d2Config(**wrong)
