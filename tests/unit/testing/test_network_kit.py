"""The network kit passes sound networks and names what is wrong with broken ones."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from aioseed.nets.mlp import mlp
from aioseed.nets.network import Network, reset_where_first
from aioseed.nets.recurrent import mlp_lstm
from aioseed.specs import ArraySpec, discrete
from aioseed.testing.network_kit import check_network
from aioseed.types import EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(3))


def made(observation, action, heads, *, spoil: str = "") -> Network:
    """Make a network that adds half of the observation before to the one now, with one mistake."""
    fresh = {"seen": jnp.zeros(3), "count": jnp.zeros((), jnp.int32)}

    def init(key):
        return {name: jax.random.normal(key, (3, head.size)) for name, head in heads.items()}

    def step(params, state, inputs):
        if spoil != "step resets nothing":
            state = reset_where_first(fresh, state, inputs.first)
        seen = inputs.observation + 0.5 * state["seen"]
        outputs = {name: seen @ kernel for name, kernel in params.items()}
        if spoil == "flat value":
            outputs["value"] = outputs["value"][..., 0]
        if spoil == "no value":
            del outputs["value"]
        return outputs, {"seen": seen, "count": state["count"] + 1}

    def unroll(params, state, inputs):
        if spoil == "unroll resets nothing":
            inputs = inputs._replace(first=jnp.zeros_like(inputs.first))

        def row(state, now):
            outputs, after = step(params, state, now)
            return state if spoil == "unroll keeps no state" else after, outputs

        after, outputs = jax.lax.scan(row, state, inputs)
        if spoil == "returns the state it got":
            after = state
        return outputs, after

    return Network(init, lambda: fresh, step, unroll)


@pytest.mark.parametrize("make", [made, partial(mlp, hidden=(8,)), partial(mlp_lstm, hidden=(8,), lstm_units=4)])
def test_a_sound_network_passes(make):
    check_network(make, SPEC)


def test_observations_may_be_trees_of_other_dtypes():
    tree = {"picture": ArraySpec("uint8", (2, 2, 1)), "held": (ArraySpec("int32", ()), ArraySpec("bool", (2,)))}
    check_network(partial(mlp_lstm, hidden=(8,), lstm_units=4), EnvironmentSpec(tree, discrete(2)))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        ("step resets nothing", "step does not begin anew at a first row"),
        ("unroll resets nothing", "step and unroll differ in row"),
        ("unroll keeps no state", "step and unroll differ in row 1"),
        ("returns the state it got", "step and unroll end with different states"),
        ("flat value", r"the output 'value' of unroll must be float32\[7, 8, 1\], it is float32\[7, 8\]"),
        ("no value", r"unroll returned \['policy'\], it was asked for \['policy', 'value'\]"),
    ],
)
def test_a_broken_network_is_told_what_is_broken(spoil, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_network(partial(made, spoil=spoil), SPEC)


def test_what_is_no_network_is_told():
    with pytest.raises(AssertionError, match="what was made is a NoneType, not a Network"):
        check_network(lambda *specs: None, SPEC)
