"""What a network sees at first rows, how observations become vectors, and how rows are folded."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.nets.network import (
    action_features,
    example_inputs,
    feed_forward,
    flatten_observation,
    network_inputs,
    previous_action_size,
    reset_where_first,
)
from aioseed.specs import ActionSpec, ArraySpec, discrete, multi_discrete, wire_dtype
from aioseed.types import FIRST, TERMINATED

FLAGS = jnp.array([FIRST, 0, TERMINATED], jnp.uint8)


def test_a_first_row_has_no_previous_action_and_no_reward() -> None:
    """None is all zeros: action 0 would be a one."""
    inputs = network_inputs(discrete(3), jnp.zeros((3, 2)), jnp.array([5.0, 6.0, 7.0]), FLAGS, jnp.array([0, 0, 2]))
    np.testing.assert_array_equal(inputs.first, [True, False, False])
    np.testing.assert_array_equal(inputs.reward, [0, 6, 7])
    np.testing.assert_array_equal(inputs.previous_action, [[0, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_several_components_are_one_hot_side_by_side() -> None:
    action = multi_discrete((2, 3))
    taken = jnp.array([[1, 1], [1, 2], [0, 0]], jnp.int32)
    inputs = network_inputs(action, jnp.zeros((3, 2)), jnp.zeros(3), FLAGS, taken)
    np.testing.assert_array_equal(inputs.previous_action, [[0] * 5, [0, 1, 0, 0, 1], [1, 0, 1, 0, 0]])
    assert previous_action_size(action) == 5


def test_the_elements_of_a_box_are_rescaled_from_their_bounds_where_they_have_any() -> None:
    action = ActionSpec("box", ArraySpec("float32", (3,)), low=(-2.0, 10.0, -np.inf), high=(2.0, 11.0, 1.0))
    taken = jnp.array([[-2.0, 10.0, -7.0], [1.0, 10.5, 0.5]])
    np.testing.assert_allclose(action_features(action, taken), [[-1, -1, -7], [0.5, 0, 0.5]])


def test_a_box_action_between_minus_1_and_1_is_taken_as_it_is() -> None:
    action = ActionSpec("box", ArraySpec("float32", (2, 2)), low=(-1.0,) * 4, high=(1.0,) * 4)
    taken = jnp.arange(12, dtype=jnp.float32).reshape(3, 2, 2)
    inputs = network_inputs(action, jnp.zeros((3, 2)), jnp.zeros(3), FLAGS, taken)
    np.testing.assert_array_equal(inputs.previous_action, [[0] * 4, [4, 5, 6, 7], [8, 9, 10, 11]])
    assert previous_action_size(action) == 4


def test_a_tree_becomes_one_vector_in_the_order_of_the_wire() -> None:
    spec = {
        "b": (ArraySpec("int32", ()), ArraySpec("bool", (2,))),
        "a": ArraySpec("uint8", (1, 2)),
    }
    observation = {
        "a": jnp.array([[[0, 255]], [[51, 0]]], jnp.uint8),
        "b": (jnp.array([300, -1], jnp.int32), jnp.array([[True, False], [True, True]])),
    }
    found = flatten_observation(spec, observation)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [[0, 1, 300, 1, 0], [0.2, 0, -1, 1, 1]], rtol=1e-6)
    timed = jax.tree.map(lambda leaf: leaf[None], observation)
    np.testing.assert_array_equal(flatten_observation(spec, timed), found[None])


def test_a_boolean_as_it_travels_is_0_or_1_to_a_network() -> None:
    spec = ArraySpec(wire_dtype(np.dtype(bool)), (2,))
    seen = flatten_observation(spec, jnp.array([[False, True]]).astype(spec.dtype))
    np.testing.assert_array_equal(seen, [[0, 1]])


def test_only_first_rows_are_reset() -> None:
    state = {"cell": jnp.ones((3, 2)), "count": jnp.array([7, 8, 9], jnp.int32)}
    initial = {"cell": jnp.zeros(2), "count": jnp.int32(-1)}
    found = reset_where_first(initial, state, jnp.array([False, True, False]))
    np.testing.assert_array_equal(found["cell"], [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(found["count"], [7, -1, 9])


def test_a_network_without_memory_sees_time_and_batch_folded() -> None:
    spec, action = ArraySpec("float32", (2,)), discrete(2)
    seen = []

    def apply(params, inputs):
        seen.append(inputs.observation.shape)
        return {"sum": jnp.sum(inputs.observation, axis=-1, keepdims=True)}

    network = feed_forward(lambda key: {}, apply)
    rows = example_inputs(spec, action, (4, 3))._replace(observation=jnp.arange(24.0).reshape(4, 3, 2))
    found, _ = network.unroll({}, network.initial_state(), rows)
    assert seen == [(12, 2)]
    np.testing.assert_array_equal(found["sum"][..., 0], np.arange(24).reshape(4, 3, 2).sum(-1))


def test_example_inputs_have_the_dtypes_of_the_spec() -> None:
    inputs = example_inputs({"x": ArraySpec("uint8", (2, 2)), "y": ArraySpec("float32", ())}, discrete(4), (5,))
    assert (inputs.observation["x"].dtype, inputs.observation["x"].shape) == (jnp.uint8, (5, 2, 2))
    assert inputs.previous_action.shape == inputs.action.shape == (5, 4) and not np.any(inputs.first)
