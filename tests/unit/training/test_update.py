from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aioseed.agents.agent import LearnerState, LossOutput, Unroll
from aioseed.specs import unflatten
from aioseed.training.config import OptimizerConfig
from aioseed.training.optimizer import make_optimizer
from aioseed.training.update import Update, compile_update, init_state
from aioseed.types import UnrollColumns


def assert_close(left, right, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(plain(a), plain(b), rtol=rtol, atol=1e-7), left, right)


def assert_equal(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(plain(a), plain(b)), left, right)


def plain(leaf):
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.array(jax.random.key_data(leaf) if is_key else leaf)


def cut(columns: UnrollColumns, start: int, stop: int) -> UnrollColumns:
    states = tuple(leaf[start:stop] for leaf in columns.initial_state)
    rows = columns._replace(initial_state=(), importance=())
    return jax.tree.map(lambda column: column[:, start:stop], rows)._replace(
        initial_state=states, importance=columns.importance[start:stop]
    )


def literal_step(kit, config, learner: LearnerState, opt_state, columns: UnrollColumns, step: int, key: jax.Array):
    """One step as a textbook has it: mean loss, gradient, optax; the noise of unroll i from key, step and i."""
    keys = jnp.stack([jax.random.fold_in(jax.random.fold_in(key, step - 1), i) for i in range(4)])
    unroll = Unroll(
        **{
            **columns._asdict(),
            "observation": unflatten(kit.environment.observation, columns.observation),
            "extras": {"a": columns.extras[0], "b": columns.extras[1]},
            "initial_state": {"memory": columns.initial_state[0]},
        }
    )

    def mean_loss(params):
        output = kit.loss(params, learner.extra, unroll, keys)
        return output.total / output.count

    gradient = jax.grad(mean_loss)(learner.params)
    rule = make_optimizer(config, kit.steps).transformation
    updates, opt_state = rule.update(gradient, opt_state, learner.params)
    learner = LearnerState(optax.apply_updates(learner.params, updates), learner.extra)
    return kit.agent().after_update(learner, step), opt_state, optax.tree.norm(gradient)


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(learning_rate=0.05, clip_norm=1.0),
        OptimizerConfig(name="rmsprop", learning_rate=0.05, momentum=0.9, epsilon=1e-5),
        OptimizerConfig(name="sgd", learning_rate=0.05, momentum=0.9),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_steps_equal_a_literal_loop(kit, optimizer):
    config = kit.config(updates_per_call=2, optimizer=optimizer)
    columns, state = kit.columns(1, 8), kit.state(config)
    learner, opt_state, key = jax.tree.map(jnp.copy, (state.learner, state.opt_state, state.key))
    literal = jax.jit(lambda *arguments: literal_step(kit, config, *arguments))
    norms = []
    for update in range(2):
        part = cut(columns, 4 * update, 4 * update + 4)
        learner, opt_state, norm = literal(learner, opt_state, part, update + 1, key)
        norms.append(norm)

    state, output = kit.program(config)(state, columns)

    assert_close(state.learner, learner)
    assert_close(state.opt_state, opt_state)
    assert (int(state.step), int(state.skipped)) == (2, 0)
    np.testing.assert_allclose(output.metrics["gradient_norm"], np.mean(norms), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["learning_rate"], 0.05, rtol=1e-6)
    assert output.finite.tolist() == [True] * 2


def test_metrics_weigh_steps_by_what_they_count(kit):
    still = OptimizerConfig(learning_rate=1e-12, clip_norm=1.0)
    config = kit.config(updates_per_call=2, optimizer=still)
    columns, state = kit.columns(2, 8), kit.state(config)
    columns.flags[1:, :3] = 1
    valid = columns.flags[1:] == 0
    _, output = kit.program(config)(state, columns)
    np.testing.assert_allclose(output.metrics["loss"], output.aux["error"].sum() / 2 / valid.sum(), rtol=1e-5)


def test_sums_and_counts_may_be_weighed_down_to_fractions_and_mean_the_same(kit):
    """A loss may count weights instead of steps; those of a whole batch may add up to less than 1."""
    plain = kit.agent()

    def weighed(*arguments) -> LossOutput:
        found = plain.loss(*arguments)
        light = jax.tree.map(lambda number: number / 1024, (found.total, found.count, found.metrics))
        return LossOutput(*light, found.aux)

    config = kit.config(updates_per_call=2)
    agent, optimizer = plain._replace(loss=weighed), make_optimizer(config, kit.steps)
    update = Update(agent, optimizer, kit.environment.observation, config)
    program = compile_update(update, kit.state(config), kit.layout, config, kit.here)
    expected, wanted = kit.program(config)(kit.state(config), kit.columns(3, 8))
    state, output = program(kit.state(config), kit.columns(3, 8))
    assert_close(state, expected)
    assert_close(output, wanted)


@pytest.mark.parametrize("updates", [1, 2])
def test_pieces_make_the_same_step_as_the_whole(kit, updates):
    whole, pieces = kit.config(updates_per_call=updates), kit.config(updates_per_call=updates, micro_unrolls=1)
    columns = kit.columns(3, 4 * updates)
    columns.flags[1:, 0] = 1  # a piece that counts nothing, and pieces of unequal counts
    expected, expected_output = kit.program(whole)(kit.state(whole), columns)
    state, output = kit.program(pieces)(kit.state(pieces), columns)
    assert_close(state, expected)
    assert_close(output, expected_output)


def test_several_updates_a_call_equal_single_calls(kit):
    many, one = kit.config(updates_per_call=2), kit.config()
    columns, single = kit.columns(4, 8), kit.state(one)
    errors = []
    for update in range(2):
        single, output = kit.program(one)(single, cut(columns, 4 * update, 4 * update + 4))
        errors.append(output.aux["error"])
    state, output = kit.program(many)(kit.state(many), columns)
    assert_close(state, single, rtol=1e-6)
    assert_close(output.aux["error"], np.concatenate(errors))
    assert output.aux["squares"].shape == (8, kit.steps)
    assert_close(output.aux["squares"].sum(1), output.aux["error"])


def test_a_nonfinite_step_changes_nothing_but_its_count(kit):
    config = kit.config()
    state, _ = kit.program(config)(kit.state(config), kit.columns(5, 4))
    before = jax.tree.map(plain, state)
    columns = kit.columns(6, 4)
    columns.reward[2, 1], columns.flags[...] = np.nan, 0
    state, output = kit.program(config)(state, columns)
    assert output.finite.tolist() == [False]
    assert int(state.skipped) == 1
    assert_equal(state._replace(skipped=jnp.int32(0)), before)


def test_a_step_after_a_skipped_one_has_another_noise(kit):
    config = kit.config()
    program, good = kit.program(config), kit.columns(2, 4)
    _, straight = program(kit.state(config), good)
    skipped, _ = program(kit.state(config), kit.poisoned(kit.batch(1, 4)).columns)
    _, after = program(skipped, good)
    assert after.finite.all() and straight.finite.all()
    assert float(after.metrics["loss"]) != float(straight.metrics["loss"])


def test_no_noise_comes_twice_not_even_around_a_skipped_step(kit):
    config = kit.config(optimizer=OptimizerConfig(name="sgd", learning_rate=1e-30))  # only noise tells steps apart
    program, state, losses = kit.program(config), kit.state(config), []
    for good in (True, False, True, False, True):
        batch = kit.batch(2, 4)
        state, output = program(state, batch.columns if good else kit.poisoned(batch).columns)
        losses += [float(output.metrics["loss"])] if good else []
    assert (int(state.step), int(state.skipped), len(set(losses))) == (3, 2, 3)


def test_a_finite_loss_with_an_infinite_gradient_is_skipped_too(kit):
    config = kit.config()
    columns = kit.columns(6, 4)
    columns.flags[...] = 0
    columns.reward[2, 1] = 1e19  # its square is finite, that of the gradient is not
    columns.observation[0][1, 1] = 100.0
    state, output = kit.program(config)(kit.state(config), columns)
    assert output.finite.tolist() == [False]
    assert np.isfinite(state.learner.params["place"]).all()


def test_a_step_after_a_nonfinite_one_in_the_same_call_is_made(kit):
    two, one = kit.config(updates_per_call=2), kit.config()
    columns = kit.columns(7, 8)
    columns.reward[:, :4], columns.flags[:, :4] = np.inf, 0
    skipped_one = kit.state(one)._replace(skipped=jnp.int32(1))  # its noise is that of the second try
    expected, expected_output = kit.program(one)(skipped_one, cut(columns, 4, 8))
    state, output = kit.program(two)(kit.state(two), columns)
    assert output.finite.tolist() == [False, True]
    assert (int(state.step), int(state.skipped)) == (1, 1)
    assert_close(state.learner, expected.learner)
    assert_close(output.metrics, expected_output.metrics)


def test_a_batch_that_counts_nothing_is_finite_and_moves_nothing(kit):
    config = kit.config()
    columns, state = kit.columns(8, 4), kit.state(config)
    columns.flags[...] = 1
    before = jax.tree.map(plain, state.learner.params)
    state, output = kit.program(config)(state, columns)
    assert output.finite.all()
    assert_equal(state.learner.params, before)


def test_the_state_is_donated(kit):
    config = kit.config()
    state = kit.state(config)
    new, _ = kit.program(config)(state, kit.columns(9, 4))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_the_program_takes_no_other_shapes(kit):
    config = kit.config()
    with pytest.raises(ValueError, match="cannot reshape"):
        kit.program(config)(kit.state(config), kit.columns(10, 5))
    wrong = kit.columns(10, 4)
    with pytest.raises(TypeError):
        kit.program(config)(kit.state(config), wrong._replace(reward=wrong.reward[1:]))


def test_the_learning_rate_follows_applied_steps(kit):
    optimizer = OptimizerConfig.model_validate(
        {"name": "sgd", "learning_rate": 1.0, "schedule": {"kind": "linear", "updates": 4}}
    )
    config = kit.config(optimizer=optimizer)
    program, state = kit.program(config), kit.state(config)
    rates = []
    for columns in (kit.columns(1, 4), kit.poisoned(kit.batch(2, 4)).columns, kit.columns(3, 4), kit.columns(4, 4)):
        state, output = program(state, columns)
        rates.append(float(output.metrics["learning_rate"]))
    assert [rates[0], *rates[2:]] == [1.0, 0.75, 0.5]


def test_the_learning_rate_stays_at_its_end_where_steps_exceed_32_bits(kit):
    optimizer = OptimizerConfig.model_validate(
        {"name": "sgd", "learning_rate": 1.0, "schedule": {"kind": "linear", "updates": 4, "end_value": 0.25}}
    )
    config = kit.config(optimizer=optimizer)
    state = kit.state(config)
    step, counts = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2**31 - 1), (state.step, state.opt_state))
    state = state._replace(step=step, opt_state=counts)  # plain descent keeps counts and no other numbers
    program, rates, moved = kit.program(config), [], []
    for seed in (1, 2):
        before = plain(state.learner.params["place"])
        state, output = program(state, kit.columns(seed, 4))
        rates.append(float(output.metrics["learning_rate"]))
        moved.append(np.linalg.norm(plain(state.learner.params["place"]) - before))
    assert rates == [0.25, 0.25]
    assert int(state.step) == -(2**31) + 1 and np.isfinite(moved).all() and min(moved) > 0


@pytest.mark.parametrize("wrong", [np.nan, 200.0], ids=["loss", "statistics"])
def test_statistics_are_written_once_a_step_and_never_by_one_that_is_skipped(kit, wrong):
    """An agent that counts rewards and steps: by whole batches, after `after_update`, and nothing when skipped.

    Skipped is a step whose loss is not finite, and one whose statistics alone would not be.
    """

    def observe(state: LearnerState, unroll: Unroll) -> LearnerState:
        found = jnp.where(unroll.reward.max() > 100, jnp.inf, unroll.reward.sum())
        return LearnerState(state.params, {**state.extra, "sum": state.extra["sum"] + jnp.array([found, 1.0])})

    plain = kit.agent()
    agent = plain._replace(
        init=lambda key: LearnerState(plain.init(key).params, {**plain.init(key).extra, "sum": jnp.zeros(2)}),
        after_update=lambda state, step: LearnerState(
            state.params, {"sum": state.extra["sum"], **plain.after_update(state, step).extra}
        ),
        observe=observe,
    )
    config = kit.config(updates_per_call=2, micro_unrolls=1)
    optimizer = make_optimizer(config, kit.steps)
    state = init_state(agent, optimizer, jax.random.key(0), kit.here)
    update = Update(agent, optimizer, kit.environment.observation, config)
    columns = kit.columns(5, 8)
    columns.reward[1:, 4:] = wrong  # in the second step
    state, output = compile_update(update, state, kit.layout, config, kit.here)(state, columns)
    assert output.finite.tolist() == [True, False]
    np.testing.assert_allclose(state.learner.extra["sum"], [columns.reward[:, :4].sum(), 1], rtol=1e-5)
