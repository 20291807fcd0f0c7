"""A wide sum tree: draw from a million weights and change them, a batch at a time.

Every inner node holds the sum of its `FAN_OUT` children and is *recomputed* from them whenever one of them changes,
never corrected by a difference: so sums do not drift, however many changes were made. A million weights need four
levels; every operation is a handful of NumPy calls over the whole batch.
"""

from __future__ import annotations

import numpy as np

FAN_OUT = 64


class SumTree:
    """Hold non-negative float64 weights. Thread: one."""

    def __init__(self, size: int) -> None:
        """Make room for `size` weights, all 0."""
        if size < 1:
            raise ValueError(f"a tree needs room for at least one weight, not {size}")
        self._size = size
        self._levels: list[np.ndarray] = []  # leaves first; each but the root as rows of FAN_OUT children
        nodes = size
        while nodes > 1 or not self._levels:
            rows = -(-nodes // FAN_OUT)
            self._levels.append(np.zeros((rows, FAN_OUT)))
            nodes = rows

    @property
    def total(self) -> float:
        """Return the sum of all weights."""
        return float(self._levels[-1].sum())

    def get(self, places: np.ndarray) -> np.ndarray:
        """Return the weights at `places`, float64[B]."""
        weights: np.ndarray = self._levels[0].reshape(-1)[places]
        return weights

    def set(self, places: np.ndarray, weights: np.ndarray) -> None:
        """Set the weights at `places`; of equal places the last one counts.

        Raises:
            ValueError: A weight is negative or not finite; nothing changes.
        """
        if not np.all(np.isfinite(weights) & (weights >= 0)):
            raise ValueError("weights must be finite and not negative")
        self._levels[0].reshape(-1)[places] = weights
        nodes = places
        for children, parents in zip(self._levels, self._levels[1:], strict=False):
            nodes = nodes // FAN_OUT
            # A node named twice is computed twice from the same children: cheaper than looking for such.
            parents.reshape(-1)[nodes] = children[nodes].sum(axis=1)

    def find(self, masses: np.ndarray) -> np.ndarray:
        """Return for each mass the place at which the running sum of the weights exceeds it, intp[B].

        With masses uniform in [0, total), a place is drawn with probability weight / total. A place of weight 0 is
        never returned while another is left.

        Args:
            masses: float64[B], at least 0; those of `total` or more are taken for a little less.
        """
        nodes = np.zeros(len(masses), np.intp)
        rows = np.arange(len(masses))
        left = np.array(masses, np.float64)
        for children in reversed(self._levels):
            # [FAN_OUT, B]: NumPy runs along the last axis, and that is the one of the batch.
            running = np.cumsum(np.ascontiguousarray(children[nodes].T), axis=0)
            # Rounding may leave more mass than the children hold in sum.
            np.minimum(left, np.nextafter(running[-1], 0.0), out=left)
            child = np.count_nonzero(running <= left, axis=0)
            left -= np.where(child > 0, running[np.maximum(child - 1, 0), rows], 0.0)
            nodes = nodes * FAN_OUT + child
        return np.minimum(nodes, self._size - 1)
