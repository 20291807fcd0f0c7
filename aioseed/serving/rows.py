"""The columns of batches, and how they go round: from the event loop to inference, to unrolls perhaps, and back."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

from aioseed.types import Allocate, StepColumns
from aioseed.wire.columns import RowWriter, StepLayout


class BatchRows:
    """Hold the columns of one batch and the writer that fills them (implements `Loan`)."""

    def __init__(self, columns: StepColumns, writer: RowWriter, resident_rows: int, pool: RowPool) -> None:
        self.columns = columns
        self.writer = writer
        self.resident_rows = resident_rows
        # Weak: columns that lie free in their pool would hold it, and themselves, until Python looks for cycles.
        self._pool = weakref.ref(pool)

    def release(self) -> None:
        """Return the columns to their pool, if it is still there: nothing reads them any more. Thread: any."""
        if (pool := self._pool()) is not None:
            pool.put(self)

    def refill(self) -> None:
        """See that the pool has other columns to give (`RowPool.refill`). Thread: any."""
        if (pool := self._pool()) is not None:
            pool.refill()


class RowPool:
    """Recycle batch columns between the event loop, which takes them, and whoever reads them last.

    `deque.append` and `pop` are atomic, so no lock is needed.

    Args:
        zeros: Makes the columns.
        at_once: Their memory is taken as they are made, and not as rows are written.
    """

    def __init__(self, layout: StepLayout, capacity: int, zeros: Allocate = np.zeros, *, at_once: bool = False) -> None:
        self._layout = layout
        self._capacity = capacity
        self._zeros = zeros
        self._resident_rows = capacity if at_once else 0
        self._free: deque[BatchRows] = deque()

    def take(self) -> BatchRows:
        """Return free columns; more are made when none is free.

        Batches in flight are bounded, and so is what unrolls keep of them.
        """
        try:
            return self._free.pop()
        except IndexError:
            return self._make()

    def put(self, rows: BatchRows) -> None:
        """Take columns back. Thread: any."""
        self._free.append(rows)

    def refill(self) -> None:
        """Make columns if none is free. Thread: any; page-locked memory takes time, which the event loop has not."""
        if not self._free:
            self.put(self._make())

    def _make(self) -> BatchRows:
        columns = self._layout.allocate(self._capacity, self._zeros)
        return BatchRows(columns, RowWriter(self._layout, columns), self._resident_rows, self)
