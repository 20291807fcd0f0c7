"""Arrays in the shape of a layout, and how to see their rows as single elements.

Moving rows between arrays is all that this room does. NumPy moves small scattered rows about ten times as fast when a
row is one element as when it is a block of further axes; hence `row_view`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aioseed.specs import ArraySpec
from aioseed.types import ActColumns, Allocate, StepColumns, UnrollBatch, UnrollColumns, UnrollIdentity, UnrollLayout

ALIGNMENT_BYTES = 64
"""XLA takes a host array without a copy when it starts at a multiple of this."""


def unroll_bytes(layout: UnrollLayout) -> int:
    """Return the bytes of one unroll with its initial state, importance and identity."""
    row = sum(spec.row_bytes for spec in (*layout.observation, *layout.extras)) + 2 * layout.action.row_bytes
    row += 4 + 1 + 4  # reward, flags, policy version
    return layout.rows * row + sum(spec.row_bytes for spec in layout.state) + 4 + 8 + 4 + 4 + 4


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
    """Return zeros that start where XLA likes it; untouched pages cost nothing."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def allocate_columns(
    layout: UnrollLayout, unrolls: int, initial_states: int, zeros: Allocate = aligned_zeros
) -> UnrollColumns:
    """Return zeroed columns, made by `zeros`, for `unrolls` unrolls and as many initial states as told."""

    def of(spec: ArraySpec) -> np.ndarray:
        return zeros((layout.rows, unrolls, *spec.shape), spec.numpy_dtype)

    return UnrollColumns(
        observation=tuple(of(spec) for spec in layout.observation),
        reward=of(ArraySpec("float32", ())),
        flags=of(ArraySpec("uint8", ())),
        previous_action=of(layout.action),
        action=of(layout.action),
        policy_version=of(ArraySpec("int32", ())),
        extras=tuple(of(spec) for spec in layout.extras),
        initial_state=tuple(zeros((initial_states, *spec.shape), spec.numpy_dtype) for spec in layout.state),
        importance=np.ones(unrolls, np.float32),
    )


class UnrollBuffer(NamedTuple):
    """Hold a batch that is filled again and again, and the views through which it is filled."""

    batch: UnrollBatch  # `count` is that of a full one
    grids: tuple[np.ndarray, ...]  # rows [T+1, B] of the time-major columns, in the order of `unroll_grids`
    states: tuple[np.ndarray, ...]  # rows [B] of the initial state


def allocate_buffer(layout: UnrollLayout, unrolls: int, zeros: Allocate = aligned_zeros) -> UnrollBuffer:
    """Return an empty buffer with room for `unrolls` unrolls, made by `zeros`."""
    identity = UnrollIdentity(
        slot=np.zeros(unrolls, np.uint32),
        epoch=np.zeros(unrolls, np.uint64),
        sequence=np.zeros(unrolls, np.uint32),
        transitions=np.zeros(unrolls, np.int32),
    )
    columns = allocate_columns(layout, unrolls, unrolls, zeros)
    return unroll_buffer(UnrollBatch(columns, identity, unrolls))


def unroll_buffer(batch: UnrollBatch) -> UnrollBuffer:
    """Return a batch, whose columns came from `allocate_buffer`, with the views through which it is read and filled."""
    states = tuple(row_view(leaf, 1) for leaf in batch.columns.initial_state)
    return UnrollBuffer(batch, unroll_grids(batch.columns), states)


def row_view(array: np.ndarray, axes: int) -> np.ndarray:
    """Return a contiguous array as one of `axes` axes whose elements are whole rows, without copying."""
    if array.ndim == axes:
        return array
    leading = array.shape[:axes]
    row = np.dtype((np.void, array.dtype.itemsize * math.prod(array.shape[axes:])))
    return array.reshape(*leading, -1).view(row).reshape(leading)


def byte_view(rows: np.ndarray) -> np.ndarray:
    """Return rows that are single elements as bytes, [..., row bytes], without copying; others as they are.

    For large rows: NumPy keeps the interpreter's lock while it copies fewer than 500 elements, however large they are.
    """
    return rows if rows.dtype.kind != "V" else rows.view(np.uint8).reshape(*rows.shape, rows.dtype.itemsize)


def unroll_grids(columns: UnrollColumns) -> tuple[np.ndarray, ...]:
    """Return every time-major column as rows [T+1, B]: in the order of `StepForms.rows`, then `policy_version`."""
    return tuple(
        row_view(column, 2)
        for column in (
            columns.flags,
            columns.reward,
            columns.previous_action,
            columns.action,
            *columns.observation,
            *columns.extras,
            columns.policy_version,
        )
    )


class RowForm(NamedTuple):
    """Say how rows that arrive, of any strides and dtype, become elements of one axis."""

    dtype: np.dtype[np.generic]
    row: np.dtype[np.void] | None  # None: a row is a single number

    @classmethod
    def of(cls, spec: ArraySpec) -> RowForm:
        """Return the form of rows of `spec`."""
        return cls(spec.numpy_dtype, np.dtype((np.void, spec.row_bytes)) if spec.shape else None)

    def rows(self, array: np.ndarray, count: int) -> np.ndarray:
        """Return the first `count` rows as [count], without copying where dtype and strides allow it.

        Raises:
            ValueError: The rows are not of the size of the spec.
        """
        rows = array if len(array) == count else array[:count]
        if self.row is None:
            return rows
        if rows.dtype != self.dtype or not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(rows, self.dtype)
        if rows.ndim > 2:
            rows = rows.reshape(count, -1)
        return rows.view(self.row).reshape(count)


class StepForms(NamedTuple):
    """Hold the forms of all columns of a step."""

    action: RowForm
    observation: tuple[RowForm, ...]
    extras: tuple[RowForm, ...]

    @classmethod
    def of(cls, layout: UnrollLayout) -> StepForms:
        """Return the forms of the steps of `layout`."""
        return cls(
            RowForm.of(layout.action),
            tuple(RowForm.of(spec) for spec in layout.observation),
            tuple(RowForm.of(spec) for spec in layout.extras),
        )

    def rows(self, steps: StepColumns, acts: ActColumns, count: int) -> list[np.ndarray]:
        """Return the first `count` rows that arrived, column by column as [count], in the order of `unroll_grids`."""
        return [
            steps.flags[:count],
            steps.reward[:count],
            self.action.rows(acts.previous_action, count),
            self.action.rows(acts.action, count),
            *(form.rows(leaf, count) for form, leaf in zip(self.observation, steps.observation, strict=True)),
            *(form.rows(leaf, count) for form, leaf in zip(self.extras, acts.extras, strict=True)),
        ]
