from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.errors import CheckpointError
from aioseed.training.trees import flatten_arrays, restore_arrays, subtree


def test_names_say_where_a_leaf_is(kit):
    names = flatten_arrays(kit.state(kit.config()))
    assert {"learner/params/place", "learner/extra/target/speed", "step", "key", "skipped"} <= names.keys()
    assert any(name.startswith("opt_state/") and name.endswith("/mu/place") for name in names)


def test_a_random_key_survives(kit):
    tree = {"key": jax.random.key(3)}
    restored = restore_arrays({"key": jax.random.key(0)}, flatten_arrays(tree))
    assert jax.random.key_data(restored["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()
    assert restored["key"].dtype == tree["key"].dtype


def test_the_copy_is_no_view():
    array = jnp.arange(8.0)
    copy = flatten_arrays({"a": array})["a"]
    assert copy.flags.owndata
    assert copy.flags.writeable


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"a": np.zeros(2, np.float32)}, "lacks array 'b/c'"),
        ({"a": np.zeros(2, np.float32), "b/c": np.zeros(3), "d": np.zeros(1)}, "has array 'd'"),
        ({"a": np.zeros(3, np.float32), "b/c": np.zeros(3, np.int32)}, "'a' is float32[3] in the checkpoint"),
        ({"a": np.zeros(2, np.float32), "b/c": np.zeros(3, np.uint32)}, "needs int32[3]"),
    ],
)
def test_the_first_difference_is_named(saved, said):
    template = {"a": jnp.zeros(2), "b": {"c": jnp.zeros(3, jnp.int32)}}
    with pytest.raises(CheckpointError) as caught:
        restore_arrays(template, saved, path="/runs/1")
    assert said in str(caught.value)
    assert caught.value.path == "/runs/1"


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'a/b'"):
        flatten_arrays({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})


def test_a_subtree_can_be_taken_out():
    arrays = {"learner/params/w": np.zeros(1), "learner/paramsx": np.zeros(1), "step": np.zeros(1)}
    assert subtree(arrays, "learner/params").keys() == {"w"}
