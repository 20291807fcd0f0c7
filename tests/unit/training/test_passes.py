"""Several passes over the unrolls of a call: in which order, and what counts once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import LearnerState
from aioseed.training.optimizer import make_optimizer
from aioseed.training.passes import Pass
from aioseed.training.update import Update, compile_update, init_state


def taken(columns, over: Pass, pieces: int) -> np.ndarray:
    """Return from which unroll each place was filled, [pieces, P], by a column that numbers them."""
    numbered = columns._replace(importance=np.arange(over.columns.importance.size, dtype=np.float32))
    shape = over.columns.importance.shape
    return np.asarray(over.cut(numbered.importance.reshape(shape), jnp.int32(0), pieces, 0))


def in_pieces(kit, pieces: int, size: int):
    """Return columns of unrolls that are cut into pieces."""
    columns = kit.columns(1, pieces * size)
    cut = columns.reward.reshape(len(columns.reward), pieces, size)
    return columns._replace(reward=cut, importance=np.arange(pieces * size, dtype=np.float32).reshape(pieces, size))


def test_the_first_pass_takes_unrolls_as_they_came_and_others_each_once_in_their_places(kit) -> None:
    columns = in_pieces(kit, 6, 4)
    orders = []
    for number in range(3):
        over = Pass.of_several(columns, jnp.int32(number), jax.random.key(number))
        orders.append(found := taken(columns, over, 6))
        np.testing.assert_array_equal(np.sort(found, axis=0), columns.importance)
    np.testing.assert_array_equal(orders[0], columns.importance)
    assert (orders[1] != orders[0]).any() and (orders[2] != orders[1]).any()
    across = orders[1] // 4
    assert (across != across[:, :1]).any(), "unrolls meet others than before"


@pytest.mark.parametrize("number", [0, 1])
def test_all_columns_are_cut_alike_whatever_their_axes(kit, number: int) -> None:
    columns = in_pieces(kit, 5, 2)
    over = Pass.of_several(columns, jnp.int32(number), jax.random.key(3))
    for first, pieces in ((0, 1), (1, 3), (4, 1)):
        which = np.asarray(over.cut(columns.importance, jnp.int32(first), pieces, 0)).astype(int)
        rows = over.cut(columns.reward, jnp.int32(first), pieces, 1)
        np.testing.assert_array_equal(rows, columns.reward.reshape(len(columns.reward), -1)[:, which])
        wide = np.stack([columns.reward] * 3, axis=-1)
        np.testing.assert_array_equal(over.cut(wide, jnp.int32(first), pieces, 1)[..., 2], rows)


def test_passes_over_one_piece_equal_calls_with_the_same_unrolls(kit) -> None:
    several, one = kit.config(passes=3), kit.config()
    columns, single = kit.columns(4, 4), kit.state(one)
    outputs = []
    for _ in range(3):
        single, output = kit.program(one)(single, columns)
        outputs.append(output)
    state, output = kit.program(several)(kit.state(several), columns)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.learner, single.learner)
    assert int(state.step) == int(single.step) == 3
    assert output.finite.tolist() == [True] * 3
    np.testing.assert_allclose(output.aux["error"], outputs[0].aux["error"], rtol=1e-5)
    metrics = [float(o.metrics["absolute_error"]) for o in outputs]
    np.testing.assert_allclose(output.metrics["absolute_error"], np.mean(metrics), rtol=1e-4)


def test_each_unroll_has_its_gradient_in_every_pass(kit) -> None:
    """With a step too small to be seen, each pass sums the same gradients, however it shares the unrolls out."""
    still = {"name": "sgd", "learning_rate": 1e-20}
    config = kit.config(passes=4, updates_per_call=3, micro_unrolls=2, optimizer=still)
    quiet = kit.agent()._replace(loss=lambda *given: kit.agent().loss(*given[:3], jnp.zeros_like(given[3])))
    update = Update(quiet, make_optimizer(config, kit.steps), kit.environment.observation, config)
    columns = kit.columns(5, config.call_unrolls)
    columns.flags[...] = 0  # equal counts: the mean over steps is that over unrolls
    program = compile_update(update, kit.state(config), kit.layout, config, kit.here)
    _, output = program(kit.state(config), columns)
    once = kit.config(batch_unrolls=config.call_unrolls, optimizer=still)
    update = Update(quiet, make_optimizer(once, kit.steps), kit.environment.observation, once)
    _, wanted = compile_update(update, kit.state(once), kit.layout, once, kit.here)(kit.state(once), columns)
    np.testing.assert_allclose(output.metrics["loss"], wanted.metrics["loss"], rtol=1e-4)
    assert output.finite.shape == (config.call_updates,)
    assert output.aux["error"].shape == (config.call_unrolls,)
    np.testing.assert_allclose(output.aux["error"], wanted.aux["error"], rtol=1e-4)


def test_what_is_seen_again_is_not_observed_again(kit) -> None:
    config = kit.config(passes=3, updates_per_call=2)

    def observe(state, unroll):
        rewards = jnp.sum(unroll.reward)
        return LearnerState(state.params, {**state.extra, "seen": state.extra["seen"] + rewards})

    def init(key):
        state = kit.agent().init(key)
        return LearnerState(state.params, {**state.extra, "seen": jnp.float32(0)})

    def after_update(state, step):
        followed = kit.agent().after_update(LearnerState(state.params, {"target": state.extra["target"]}), step)
        return LearnerState(followed.params, {**state.extra, **followed.extra})

    agent = kit.agent()._replace(init=init, observe=observe, after_update=after_update)
    optimizer = make_optimizer(config, kit.steps)
    state = init_state(agent, optimizer, jax.random.key(0), kit.here)
    update = Update(agent, optimizer, kit.environment.observation, config)
    columns = kit.columns(6, config.call_unrolls)
    state, output = compile_update(update, state, kit.layout, config, kit.here)(state, columns)
    assert output.finite.all()
    np.testing.assert_allclose(state.learner.extra["seen"], columns.reward.sum(), rtol=1e-4)


def test_another_call_takes_another_order(kit) -> None:
    config = kit.config(passes=2, updates_per_call=4, optimizer={"name": "sgd", "learning_rate": 1e-20})
    quiet = kit.agent()._replace(loss=lambda *given: kit.agent().loss(*given[:3], jnp.zeros_like(given[3])))
    update = Update(quiet, make_optimizer(config, kit.steps), kit.environment.observation, config)
    program, state, norms = (
        compile_update(update, kit.state(config), kit.layout, config, kit.here),
        kit.state(config),
        [],
    )
    columns = kit.columns(7, config.call_unrolls)
    for _ in range(2):
        state, output = program(state, columns)
        norms.append(float(output.metrics["gradient_norm"]))
    assert norms[0] != norms[1], "other unrolls met in an optimiser step"
