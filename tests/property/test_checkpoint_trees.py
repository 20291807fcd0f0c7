from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aioseed.training.store import CheckpointStore, Snapshot
from aioseed.training.trees import flatten_arrays, restore_arrays


class Pair(NamedTuple):
    left: object
    right: object


dtypes = st.sampled_from(["float32", "float16", "int32", "uint32", "uint8", "int8", "bool"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
half = arrays.map(lambda array: array.astype(ml_dtypes.bfloat16))
keys = st.text("abcxyz._- é", min_size=1, max_size=4)
trees = st.recursive(
    arrays | half,
    lambda nodes: (
        st.dictionaries(keys, nodes, max_size=3) | st.lists(nodes, max_size=3) | st.builds(Pair, nodes, nodes)
    ),
    max_leaves=8,
)


@given(trees)
def test_any_tree_comes_back_bit_for_bit_through_a_saved_checkpoint(tree):
    tree = {"tree": tree}
    with tempfile.TemporaryDirectory() as directory:
        store = CheckpointStore(Path(directory))
        store.save(Snapshot(1, flatten_arrays(tree), {}), 1)
        checkpoint = store.newest()
    assert checkpoint is not None
    restored = restore_arrays(tree, checkpoint.arrays)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    for left, right in zip(jax.tree.leaves(restored), jax.tree.leaves(tree), strict=True):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
