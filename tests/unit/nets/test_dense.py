"""A dense layer of ours is Flax's, whichever order the gradient of its kernel is computed in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from aioseed.nets.dense import FEW_UNITS, MANY_UNITS, dense, product

INIT = nn.initializers.glorot_uniform()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(4, 64), (64, 64), (64, 3), (64, FEW_UNITS), (96, 40), (MANY_UNITS + 1, MANY_UNITS + 2), (1, 1)],
)
@pytest.mark.parametrize("leading", [(40,), (5, 8)])
def test_product_and_gradients_are_those_of_numpy(inputs: int, outputs: int, leading: tuple[int, ...]) -> None:
    random = np.random.default_rng(inputs * outputs)
    features = random.normal(size=(*leading, inputs)).astype(np.float32)
    kernel = random.normal(size=(inputs, outputs)).astype(np.float32)
    cotangent = random.normal(size=(*leading, outputs)).astype(np.float32)

    @jax.jit
    def gradients(features: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        found, back = jax.vjp(product, features, kernel)
        return found, back(jnp.asarray(cotangent))

    found, (of_features, of_kernel) = gradients(features, kernel)
    exact = features.astype(np.float64), kernel.astype(np.float64), cotangent.astype(np.float64)
    np.testing.assert_allclose(found, exact[0] @ exact[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_features, exact[2] @ exact[1].T, rtol=1e-4, atol=1e-4)
    expected = np.tensordot(exact[0], exact[2], (range(len(leading)), range(len(leading))))
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-4, atol=1e-4)


def test_parameters_are_named_shaped_and_begun_as_those_of_flax() -> None:
    class Ours(nn.Module):
        @nn.compact
        def __call__(self, features: jax.Array) -> jax.Array:
            return dense(2, kernel_init=INIT, use_bias=False, name="last")(dense(3, kernel_init=INIT)(features))

    class Theirs(nn.Module):
        @nn.compact
        def __call__(self, features: jax.Array) -> jax.Array:
            hidden = nn.Dense(3, kernel_init=INIT)(features)
            return nn.Dense(2, kernel_init=INIT, use_bias=False, name="last")(hidden)

    features = jnp.ones((4, 5))
    ours, theirs = (module().init(jax.random.key(1), features) for module in (Ours, Theirs))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), ours, theirs))
