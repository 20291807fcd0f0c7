"""A wide sum tree: draw from a million weights and change them, a batch at a time.

Every inner node holds the sum of its `FAN_OUT` children and is *recomputed* from them whenever one of them changes,
never corrected by a difference: so sums do not drift, however many changes were made. The uppermost level is one plain
array, searched as a whole; a million weights need two levels below it. Every operation is a handful of NumPy calls over
the whole batch.
"""

from __future__ import annotations

import math

import numpy as np

FAN_OUT = 64
TOP_NODES = 1024
"""Most nodes of the uppermost level: summing them up costs a few microseconds a batch."""


class SumTree:
    """Hold non-negative float64 weights. Thread: one."""

    def __init__(self, size: int) -> None:
        """Make room for `size` weights, all 0."""
        if size < 1:
            raise ValueError(f"a tree needs room for at least one weight, not {size}")
        self._size = size
        self._levels: list[np.ndarray] = []  # leaves first, as rows of FAN_OUT children
        nodes = size
        while nodes > TOP_NODES or not self._levels:
            nodes = -(-nodes // FAN_OUT)
            self._levels.append(np.zeros((nodes, FAN_OUT)))
        self._top = np.zeros(nodes)
        self._leaves = self._levels[0].reshape(-1)
        self._above = [level.reshape(-1) for level in self._levels[1:]] + [self._top]

    @property
    def total(self) -> float:
        """Return the sum of all weights."""
        return float(self._top.sum())

    def get(self, places: np.ndarray) -> np.ndarray:
        """Return the weights at `places`, float64[B]."""
        weights: np.ndarray = self._leaves[places]
        return weights

    def set(self, places: np.ndarray, weights: np.ndarray) -> None:
        """Set the weights at `places`; of equal places the last one counts.

        Raises:
            ValueError: A weight is negative or not finite; nothing changes.
        """
        # A sum is finite only if all of it is.
        if not (math.isfinite(weights.sum()) and (weights >= 0).all()):
            raise ValueError("weights must be finite and not negative")
        self._leaves[places] = weights
        nodes = places
        for children, parents in zip(self._levels, self._above, strict=True):
            nodes = nodes // FAN_OUT
            # A node named twice is computed twice from the same children: cheaper than looking for such.
            parents[nodes] = children.take(nodes, axis=0).sum(axis=1)

    def find(self, masses: np.ndarray) -> np.ndarray:
        """Return for each mass the place at which the running sum of the weights exceeds it, intp[B].

        With masses uniform in [0, total), a place is drawn with probability weight / total. A place of weight 0 is
        never returned while another is left.

        Args:
            masses: float64[B], at least 0; those of `total` or more are taken for a little less.
        """
        running = np.cumsum(self._top)
        # Rounding may leave more mass than there is in sum.
        left = np.minimum(masses, np.nextafter(running[-1], 0.0))
        nodes = np.searchsorted(running, left, side="right")
        left = left - np.where(nodes > 0, running[nodes - 1], 0.0)
        rows = np.arange(len(masses))
        for children in reversed(self._levels):
            sums = np.cumsum(children.take(nodes, axis=0), axis=1)
            np.minimum(left, np.nextafter(sums[:, -1], 0.0), out=left)
            child = np.argmax(sums > left[:, None], axis=1)
            left -= np.where(child > 0, sums[rows, child - 1], 0.0)
            nodes = nodes * FAN_OUT + child
        places: np.ndarray = np.minimum(nodes, self._size - 1)
        return places
