"""Options that users write are refused by name, and layers begin as documented."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.nets.layers import Outputs, Torso, check_layers
from aioseed.nets.mlp import mlp
from aioseed.nets.network import Head
from aioseed.nets.recurrent import mlp_lstm
from aioseed.specs import ArraySpec, discrete


@pytest.mark.parametrize(
    ("factory", "option", "complaint"),
    [
        (mlp, {"activation": "tanhh"}, "activation must be one of relu, swish, tanh, not 'tanhh'"),
        (mlp, {"hidden": (64, 0)}, "hidden must be made of positive integers, not 0"),
        (mlp_lstm, {"lstm_units": 1.5}, "lstm_units must be made of positive integers, not 1.5"),
        (mlp_lstm, {"layers": 0}, "layers must be made of positive integers, not 0"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_built(factory, option, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        factory(ArraySpec("float32", (2,)), discrete(2), {"value": Head(1)}, **option)


def test_sound_options_pass() -> None:
    check_layers("swish", hidden=(), layers=1)


def test_layers_are_dense_with_their_activation() -> None:
    features = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    torso = Torso((4,), "relu")
    params = torso.init(jax.random.key(0), features)
    layer = jax.tree.map(np.asarray, params["params"]["Dense_0"])
    np.testing.assert_allclose(
        torso.apply(params, features),
        np.maximum(np.asarray(features) @ layer["kernel"] + layer["bias"], 0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_outputs_are_named_and_spread_as_their_heads_ask() -> None:
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 64)), jnp.float32)
    outputs, _ = Outputs({"wide": Head(8, 2.0), "narrow": Head(3, 0.01)}, (4,), "tanh").init_with_output(
        jax.random.key(0), features, None
    )
    assert {name: output.shape[1] for name, output in outputs.items()} == {"wide": 8, "narrow": 3}
    assert 1.6 < float(np.std(outputs["wide"])) < 2.4
    assert 0.007 < float(np.std(outputs["narrow"])) < 0.013
