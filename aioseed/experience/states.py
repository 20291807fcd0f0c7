"""Recurrent states that wait for the end of the unroll whose row 0 they entered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aioseed.experience.layout import RowForm, row_view
from aioseed.specs import ArraySpec


class StateRing:
    """Keep, for each slot, the states that entered row 0 of its open unroll and of the later ones that have begun.

    Position 0 of a slot's ring is its open unroll, 1 the next, and so on. Thread: the inference thread alone.
    """

    def __init__(self, specs: Sequence[ArraySpec], slots: int, unrolls_at_once: int) -> None:
        self._forms = tuple(RowForm.of(spec) for spec in specs)
        self._stride = slots
        self._size = unrolls_at_once
        self._start = np.zeros(slots, np.intp)
        self._leaves = [
            row_view(np.zeros((unrolls_at_once * slots, *spec.shape), spec.numpy_dtype), 1) for spec in specs
        ]

    def __bool__(self) -> bool:
        return bool(self._forms)

    def put(self, slots: np.ndarray, positions: np.ndarray, leaves: Sequence[np.ndarray]) -> None:
        """Store one state a slot, leaves [len(slots), ...], at its `positions`."""
        where = (self._start[slots] + positions) % self._size * self._stride + slots
        for ring, form, leaf in zip(self._leaves, self._forms, leaves, strict=True):
            ring[where] = form.rows(leaf, len(slots))

    def get(self, slots: np.ndarray) -> list[np.ndarray]:
        """Return the states of the open unrolls, leaves as rows [len(slots)]."""
        where = self._start[slots] * self._stride + slots
        return [ring[where] for ring in self._leaves]

    def advance(self, slots: np.ndarray) -> None:
        """Make the next unroll of each slot its open one."""
        self._start[slots] = (self._start[slots] + 1) % self._size
