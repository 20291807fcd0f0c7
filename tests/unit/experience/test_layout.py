from __future__ import annotations

import numpy as np
import pytest

from aioseed.experience.layout import ALIGNMENT_BYTES, RowForm, allocate_buffer, row_view, unroll_bytes
from aioseed.specs import ArraySpec
from aioseed.types import UnrollLayout

LAYOUT = UnrollLayout(
    observation=(ArraySpec("uint8", (5, 3)), ArraySpec("float32", ())),
    action=ArraySpec("int32", (2,)),
    extras=(ArraySpec("float32", (2,)),),
    state=(ArraySpec("float32", (7,)),),
    unroll_steps=4,
    overlap_steps=2,
)


def test_every_column_starts_where_xla_takes_it_without_a_copy():
    for _ in range(5):
        columns = allocate_buffer(LAYOUT, 3).batch.columns
        arrays = [*columns.observation, *columns[1:6], *columns.extras, *columns.initial_state]
        assert [array.ctypes.data % ALIGNMENT_BYTES for array in arrays] == [0] * len(arrays)
        assert all(array.flags.c_contiguous for array in arrays)


def test_the_size_of_an_unroll_is_that_of_its_arrays():
    batch = allocate_buffer(LAYOUT, 1).batch
    columns = batch.columns
    arrays = [*columns.observation, *columns[1:6], *columns.extras, *columns.initial_state, columns.importance]
    arrays += batch.identity
    assert unroll_bytes(LAYOUT) == sum(array.nbytes for array in arrays)


def test_columns_have_the_shapes_and_dtypes_of_the_layout():
    columns = allocate_buffer(LAYOUT, 3).batch.columns
    assert [(leaf.dtype.name, leaf.shape) for leaf in columns.observation] == [
        ("uint8", (7, 3, 5, 3)),
        ("float32", (7, 3)),
    ]
    assert (columns.action.dtype.name, columns.action.shape) == ("int32", (7, 3, 2))
    assert (columns.policy_version.dtype.name, columns.policy_version.shape) == ("int32", (7, 3))
    assert [leaf.shape for leaf in columns.initial_state] == [(3, 7)]


def test_a_row_view_writes_through():
    array = np.zeros((2, 3, 4), np.float32)
    row_view(array, 2)[1, 2] = np.arange(4, dtype=np.float32).tobytes()
    assert array[1, 2].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_rows_of_any_strides_and_dtype_arrive_as_the_spec_says(order, dtype):
    leaf = np.arange(12).reshape(3, 4).astype(dtype, order=order)
    leaf.flags.writeable = False
    rows = RowForm.of(ArraySpec("float32", (4,))).rows(leaf, 2)
    assert np.frombuffer(rows.tobytes(), np.float32).tolist() == list(range(8))


@pytest.mark.parametrize("width", [3, 5, 8])
def test_a_leaf_of_the_wrong_shape_is_not_taken(width):
    with pytest.raises(ValueError):
        RowForm.of(ArraySpec("float32", (4,))).rows(np.zeros((3, width), np.float32), 3)
