"""Networks for images: sizes as published, and one answer whether stepped or unrolled."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.nets.images import dqn, impala_deep, impala_shallow, r2d2
from aioseed.nets.network import Head, example_inputs
from aioseed.specs import ArraySpec, discrete

ATARI, LAB = ArraySpec("uint8", (84, 84, 4)), ArraySpec("uint8", (72, 96, 3))
POLICY_AND_VALUE = {"policy": Head(9), "value": Head(1)}
SMALL = ArraySpec("uint8", (40, 44, 2))
TINY = {"hidden_units": 8}


def parameters(network) -> list[int]:
    """Return the size of every array; shapes alone, nothing is computed."""
    return [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))]


def test_dqn_has_as_many_parameters_as_published():
    sizes = parameters(dqn(ATARI, discrete(6), {"q_values": Head(6)}))
    assert (len(sizes), sum(sizes)) == (10, 1_687_206)  # the figure known of Pong's network


def test_the_deep_network_has_seed_rls_39_arrays_and_the_papers_size():
    sizes = parameters(impala_deep(LAB, discrete(9), POLICY_AND_VALUE))
    convolutions = 448 + 4 * 2_320 + 4_640 + 4 * 9_248 + 5 * 9_248
    dense, lstm, heads = 9 * 12 * 32 * 256 + 256, (256 + 1 + 9) * 1024 + 256 * 1024 + 1024, 257 * 9 + 257
    assert (len(sizes), sum(sizes)) == (39, convolutions + dense + lstm + heads)
    # With the encoder of instructions, which this network has not, the paper says 1.6 million.
    instructions = 1000 * 20 + (20 + 64) * 256 + 256 + 64 * 1024
    assert round((sum(sizes) + instructions) / 1e6, 1) == 1.6


def test_the_shallow_network_has_the_papers_size():
    sizes = parameters(impala_shallow(LAB, discrete(9), POLICY_AND_VALUE))
    assert sum(sizes) == 3_088 + 8_224 + 7 * 10 * 32 * 256 + 256 + 266 * 1024 + 256 * 1024 + 1024 + 257 * 9 + 257
    instructions = 1000 * 20 + (20 + 64) * 256 + 256 + 64 * 1024
    assert round((sum(sizes) + instructions) / 1e6, 1) == 1.2


def test_r2d2_puts_reward_and_previous_action_beside_512_features():
    sizes = parameters(r2d2(ATARI, discrete(18), {"q_values": Head(18)}))
    torso = 8_224 + 32_832 + 36_928 + 3136 * 512 + 512
    lstm = (512 + 1 + 18) * 2048 + 512 * 2048 + 2048
    dueling = 2 * (512 * 512 + 512) + 512 + 1 + 512 * 18
    assert sum(sizes) == torso + lstm + dueling == 4_357_281 + 0


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(partial(r2d2, lstm_units=4, dueling_units=4, **TINY), id="r2d2"),
        pytest.param(partial(impala_deep, channels=(2, 3), lstm_units=0, **TINY), id="deep, no memory"),
        pytest.param(partial(impala_shallow, lstm_units=4, dtype="bfloat16", **TINY), id="shallow, bfloat16"),
    ],
)
def test_stepping_is_unrolling(network):
    net = network(SMALL, discrete(3), {"policy": Head(3)})
    params = jax.jit(net.init)(jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    rows = example_inputs(SMALL, discrete(3), (3, 2))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, *SMALL.shape), np.uint8)
    rows = rows._replace(observation=jnp.asarray(pixels), first=jnp.asarray([[True, True], [False, True], [False] * 2]))
    state = jax.tree.map(lambda leaf: jnp.ones((2, *leaf.shape), leaf.dtype), net.initial_state())
    unrolled, _ = jax.jit(net.unroll)(params, state, rows)
    step = jax.jit(net.step)
    for t in range(3):
        outputs, state = step(params, state, jax.tree.map(lambda leaf, t=t: leaf[t], rows))
        np.testing.assert_allclose(outputs["policy"], unrolled["policy"][t], rtol=1e-2, atol=1e-3)
    assert unrolled["policy"].dtype == jnp.float32 and np.ptp(np.asarray(unrolled["policy"])) > 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(dqn, ArraySpec("float32", (4,))), "one image"),
        (partial(dqn, {"image": ATARI}), "several arrays"),
        (partial(impala_deep, ATARI, dtype="float16"), "dtype must be one of float32, bfloat16"),
        (partial(impala_deep, ATARI, kernel_init="zeros"), "kernel_init must be one of"),
        (partial(impala_shallow, ATARI, lstm_units=-1), "lstm_units"),
    ],
)
def test_wrong_options_are_said_so(make, said):
    arguments = (discrete(3), {"policy": Head(3)})
    with pytest.raises(ValueError, match=said):
        make(action=arguments[0], heads=arguments[1])
