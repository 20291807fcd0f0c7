"""The LSTM: step by step as unrolled, fresh at first rows, and equal to the textbook."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.nets.lstm import lstm
from aioseed.nets.network import Head, Network, NetworkInputs, network_inputs
from aioseed.nets.recurrent import Lstm, mlp_dueling_lstm, mlp_lstm
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST

SPEC, ACTION = ArraySpec("float32", (3,)), discrete(2)
ROWS, BATCH = 6, 4


class Made(NamedTuple):
    net: Network
    params: object
    step: Callable
    unroll: Callable


@cache
def made(**options) -> Made:
    """Return a network with its functions compiled, once for all tests."""
    net = mlp_lstm(SPEC, ACTION, {"policy": Head(2), "value": Head(1)}, hidden=(5,), lstm_units=7, **options)
    return Made(net, jax.jit(net.init)(jax.random.key(0)), jax.jit(net.step), jax.jit(net.unroll))


def inputs(first_rows: dict[int, list[int]]) -> NetworkInputs:
    """Return random rows of which those at {row: columns} are first."""
    generator = np.random.default_rng(0)
    flags = np.zeros((ROWS, BATCH), np.uint8)
    for row, columns in first_rows.items():
        flags[row, columns] = FIRST
    return network_inputs(
        ACTION,
        jnp.asarray(generator.normal(size=(ROWS, BATCH, 3)), jnp.float32),
        jnp.asarray(generator.normal(size=(ROWS, BATCH)), jnp.float32),
        jnp.asarray(flags),
        jnp.asarray(generator.integers(0, 2, (ROWS, BATCH)), jnp.int32),
    )


def state_of(net: Network, value: float):
    return jax.tree.map(lambda leaf: jnp.full((BATCH, *leaf.shape), value, leaf.dtype), net.initial_state())


def at(rows: NetworkInputs, t: int) -> NetworkInputs:
    return jax.tree.map(lambda leaf: leaf[t], rows)


@pytest.mark.parametrize("layers", [1, 2])
def test_stepping_row_by_row_is_the_unroll(layers: int) -> None:
    net, params, step, unroll = made(layers=layers)
    rows, state = inputs({2: [0], 4: [1, 3]}), state_of(net, 0.3)
    unrolled, last = unroll(params, state, rows)
    for t in range(ROWS):
        outputs, state = step(params, state, at(rows, t))
        for name, output in outputs.items():
            np.testing.assert_allclose(output, unrolled[name][t], rtol=1e-5, atol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state, last)


def test_an_unroll_in_two_parts_is_the_unroll_in_one() -> None:
    """What burn-in needs: the state that the first part leaves is the one that enters the second."""
    net, params, _, unroll = made(layers=2)
    rows, state = inputs({2: [0], 4: [1, 3]}), state_of(net, 0.3)
    whole, _ = unroll(params, state, rows)
    _, between = unroll(params, state, jax.tree.map(lambda leaf: leaf[:4], rows))
    part, _ = unroll(params, between, jax.tree.map(lambda leaf: leaf[4:], rows))
    np.testing.assert_allclose(part["policy"], whole["policy"][4:], rtol=1e-5, atol=1e-6)


@cache
def dueling(layers: int) -> Made:
    net = mlp_dueling_lstm(SPEC, ACTION, {"q": Head(2)}, hidden=(5,), lstm_units=7, layers=layers, dueling_units=6)
    return Made(net, jax.jit(net.init)(jax.random.key(0)), jax.jit(net.step), jax.jit(net.unroll))


def test_dueling_advantages_have_mean_0_so_that_the_value_is_the_mean_of_the_outputs() -> None:
    net, params, _, unroll = dueling(1)
    rows = inputs({})
    found = unroll(params, state_of(net, 0.3), rows)[0]["q"]
    shifted = jax.tree.map(lambda leaf: leaf, params)
    shifted["DuelingOutputs_0"]["q_value"]["bias"] = params["DuelingOutputs_0"]["q_value"]["bias"] + 5
    np.testing.assert_allclose(unroll(shifted, state_of(net, 0.3), rows)[0]["q"], found + 5, rtol=1e-5)
    shifted["DuelingOutputs_0"]["q_advantage"]["kernel"] *= 0
    levelled = unroll(shifted, state_of(net, 0.3), rows)[0]["q"] - 5
    np.testing.assert_allclose(levelled, np.broadcast_to(found.mean(-1, keepdims=True), found.shape), atol=1e-5)


def test_dueling_heads_refuse_to_take_the_action() -> None:
    with pytest.raises(ValueError, match="head 'q' takes the action"):
        mlp_dueling_lstm(SPEC, ACTION, {"policy": Head(2), "q": Head(1, takes_action=True)})


def test_without_lstm_layers_there_is_no_state_and_no_memory() -> None:
    net, params, _, unroll = dueling(0)
    assert net.initial_state() == ()
    rows = inputs({})
    found = unroll(params, (), rows)[0]["q"]
    other = rows._replace(observation=rows.observation.at[:3].add(1.0))
    np.testing.assert_array_equal(unroll(params, (), other)[0]["q"][3:], found[3:])


def test_what_was_before_a_first_row_is_forgotten() -> None:
    net, params, _, unroll = made(layers=1)
    rows = inputs({3: list(range(BATCH))})
    found = unroll(params, state_of(net, 0.5), rows)[0]["policy"]
    later = jax.tree.map(lambda leaf: jnp.concatenate([leaf[3:], leaf[3:]]), rows)
    fresh = unroll(params, state_of(net, 0.0), later)[0]["policy"]
    np.testing.assert_allclose(found[3:], fresh[:3], rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[:3], unroll(params, state_of(net, 0.0), rows)[0]["policy"][:3]), (
        "the state does matter"
    )


@pytest.mark.parametrize("include_previous", [True, False])
def test_previous_action_and_reward_are_inputs_only_if_asked_for(include_previous: bool) -> None:
    net, params, step, _ = made(layers=1) if include_previous else made(layers=1, include_previous=False)
    rows = at(inputs({0: [0]}), 0)
    before = step(params, state_of(net, 0.0), rows)[0]["value"]
    others = {"reward": rows.reward + 1, "previous_action": 1 - rows.previous_action}
    for name, other in others.items():
        after = step(params, state_of(net, 0.0), rows._replace(**{name: other}))[0]["value"]
        assert np.all(before != after) if include_previous else np.all(before == after)


def test_a_layer_is_the_lstm_of_the_textbook() -> None:
    """Step by step in NumPy, with Linen's parameters: i, f, g, o from one kernel for inputs and one for outputs."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    generator = np.random.default_rng(0)
    features = generator.normal(size=(ROWS, BATCH, 3)).astype(np.float32)
    zeros = jnp.zeros((BATCH, 7))
    first = jnp.zeros((ROWS, BATCH), jnp.bool_)
    module = Lstm(7)
    variables = module.init(jax.random.key(0), features, first, (zeros, zeros))
    outputs, (cell, last) = module.apply(variables, features, first, (zeros, zeros))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), variables["params"])
    c = h = np.zeros((BATCH, 7))
    for t in range(ROWS):
        gates = features[t] @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"] + h @ params["recurrent_kernel"]
        i, f, g, o = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(outputs[t], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cell, c, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last, outputs[-1])
    np.testing.assert_array_equal(params["Dense_0"]["bias"], np.repeat([0, 1, 0, 0], 7))


def test_the_gradient_of_the_recurrence_is_the_one_that_jax_finds() -> None:
    def differentiated(kernel, state, projected, first):
        def step(carry, row):
            gates, fresh = row
            cell, output = (jnp.where(fresh[:, None], 0.0, leaf) for leaf in carry)
            i, f, g, o = jnp.split(gates + output @ kernel, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            output = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (cell, output), output

        last, outputs = jax.lax.scan(step, state, (projected, first))
        return outputs, last

    def normal(seed, *shape):
        return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)

    first = jnp.zeros((ROWS, BATCH), jnp.bool_).at[0, 1].set(True).at[3, 0].set(True).at[3, 2].set(True)
    arguments = normal(1, 7, 28), (normal(2, BATCH, 7), normal(3, BATCH, 7)), normal(4, ROWS, BATCH, 28)
    weights = normal(5, ROWS, BATCH, 7), (normal(6, BATCH, 7), normal(7, BATCH, 7))

    def found(function):
        outputs, back = jax.vjp(lambda *arguments: function(*arguments, first), *arguments)
        return outputs, back(weights)

    ours, expected = found(lstm), found(differentiated)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), ours, expected)


def test_an_action_that_is_asked_about_matters_in_its_own_row_and_is_not_remembered() -> None:
    net = mlp_lstm(SPEC, ACTION, {"q": Head(1, takes_action=True), "value": Head(1)}, hidden=(5,), lstm_units=7)
    params, rows = jax.jit(net.init)(jax.random.key(0)), inputs({2: [0]})
    asked = np.zeros((ROWS, BATCH, 2), np.float32)
    found = net.unroll(params, state_of(net, 0.3), rows._replace(action=jnp.asarray(asked)))[0]
    asked[3] = 1
    other = net.unroll(params, state_of(net, 0.3), rows._replace(action=jnp.asarray(asked)))[0]
    changed = np.asarray(found["q"] != other["q"])[..., 0]
    np.testing.assert_array_equal(changed, np.repeat((np.arange(ROWS) == 3)[:, None], BATCH, axis=1))
    np.testing.assert_array_equal(found["value"], other["value"])
