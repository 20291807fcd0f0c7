"""The perceptron: its outputs, its torsos, and that step and unroll are one function."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.nets.mlp import mlp
from aioseed.nets.network import Head, Network, example_inputs
from aioseed.specs import ArraySpec, discrete

SPEC = {"pixels": ArraySpec("uint8", (2, 3)), "speed": ArraySpec("float32", ())}
HEADS = {"policy": Head(3, 0.01), "value": Head(1)}


def rows(shape: tuple[int, ...]):
    generator = np.random.default_rng(0)
    observation = {
        "pixels": jnp.asarray(generator.integers(0, 256, (*shape, 2, 3)), jnp.uint8),
        "speed": jnp.asarray(generator.normal(size=shape), jnp.float32),
    }
    return example_inputs(SPEC, discrete(3), shape)._replace(observation=observation)


@cache
def made(shared_torso: bool) -> tuple[Network, object]:
    network = mlp(SPEC, discrete(3), HEADS, hidden=(64,), shared_torso=shared_torso)
    return network, jax.jit(network.init)(jax.random.key(0))


@pytest.mark.parametrize("shared_torso", [True, False])
def test_an_unroll_is_its_steps(shared_torso: bool) -> None:
    network, params = made(shared_torso)
    inputs = rows((4, 5))
    unrolled, _ = jax.jit(network.unroll)(params, network.initial_state(), inputs)
    assert {name: output.shape for name, output in unrolled.items()} == {"policy": (4, 5, 3), "value": (4, 5, 1)}
    step = jax.jit(network.step)
    for t in range(4):
        outputs, state = step(params, (), jax.tree.map(lambda leaf, t=t: leaf[t], inputs))
        assert state == ()
        for name, output in outputs.items():
            np.testing.assert_allclose(output, unrolled[name][t], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared_torso", [True, False])
def test_heads_share_hidden_layers_only_if_asked_to(shared_torso: bool) -> None:
    network, params = made(shared_torso)

    def value(params):
        return jnp.sum(network.step(params, (), rows((5,)))[0]["value"])

    moved = [bool(np.any(leaf)) for leaf in jax.tree.leaves(jax.jit(jax.grad(value))(params))]
    kernels_and_biases = 2 * (2 if shared_torso else 4) + (2 if shared_torso else 0)
    assert len(moved) == (6 if shared_torso else 8) == kernels_and_biases
    assert sum(moved) == 4, "the value's own layers, and the shared ones or its own torso"


def test_a_small_head_scale_makes_actions_about_equally_likely() -> None:
    network, params = made(False)
    outputs, _ = jax.jit(network.step)(params, (), rows((50,)))
    assert np.max(np.abs(outputs["policy"])) < 0.1 < np.max(np.abs(outputs["value"]))


@pytest.mark.parametrize("shared_torso", [True, False])
def test_only_heads_that_take_the_action_depend_on_it(shared_torso: bool) -> None:
    heads = {"q": Head(1, takes_action=True), "value": Head(1)}
    network = mlp(SPEC, discrete(3), heads, hidden=(16,), shared_torso=shared_torso)
    params, inputs = jax.jit(network.init)(jax.random.key(0)), rows((4, 5))
    found, other = (
        network.unroll(params, (), inputs._replace(action=jnp.full((4, 5, 3), number)))[0] for number in (0.0, 1.0)
    )
    assert found["q"].shape == (4, 5, 1) and np.all(np.asarray(found["q"]) != np.asarray(other["q"]))
    np.testing.assert_array_equal(found["value"], other["value"])
    with pytest.raises(ValueError, match="a head takes the action"):
        network.unroll(params, (), inputs._replace(action=None))


@pytest.mark.parametrize("shared_torso", [True, False])
def test_which_action_is_better_may_depend_on_the_observation(shared_torso: bool) -> None:
    """Were the output a sum of what observation and action are worth, an action would be worth the same everywhere."""
    network = mlp(SPEC, discrete(3), {"q": Head(1, takes_action=True)}, hidden=(16,), shared_torso=shared_torso)
    params, inputs = jax.jit(network.init)(jax.random.key(0)), rows((4, 5))
    worth = [
        np.asarray(network.unroll(params, (), inputs._replace(action=jnp.full((4, 5, 3), number)))[0]["q"])
        for number in (0.0, 1.0)
    ]
    assert np.ptp(worth[1] - worth[0]) > 0.01
