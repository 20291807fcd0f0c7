"""A wide sum tree: draw from a million weights and change them, a batch at a time.

Every inner node holds the sum of its `FAN_OUT` children and is *recomputed* from them whenever one of them changes,
never corrected by a difference: so sums do not drift, however many changes were made. The uppermost level is one plain
array, searched as a whole; a million weights need two levels below it. Every operation is a handful of NumPy calls over
the whole batch.
"""

from __future__ import annotations

import math

import numpy as np

_FAN_OUT_BITS = 6
FAN_OUT = 1 << _FAN_OUT_BITS
TOP_NODES = 1024
"""Most nodes of the uppermost level: summing them up costs a few microseconds a batch."""
_ONES = np.ones(FAN_OUT)


class SumTree:
    """Hold non-negative float64 weights. Thread: one."""

    def __init__(self, size: int) -> None:
        """Make room for `size` weights, all 0."""
        if size < 1:
            raise ValueError(f"a tree needs room for at least one weight, not {size}")
        self._size = size
        self.highest = 0.0  # of all weights that were ever set
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
        if not len(places):
            return
        # Comparisons with NaN are false. The reductions themselves cost a third of `min`, `max` and `sum`.
        highest = float(np.maximum.reduce(weights))
        if not (np.minimum.reduce(weights) >= 0 and highest < math.inf):
            raise ValueError("weights must be finite and not negative")
        self.highest = max(self.highest, highest)
        self._leaves[places] = weights
        nodes = places
        for children, parents in zip(self._levels, self._above, strict=True):
            nodes = nodes >> _FAN_OUT_BITS
            # A node named twice is computed twice from the same children: cheaper than looking for such.
            parents[nodes] = children.take(nodes, axis=0) @ _ONES

    def find(self, masses: np.ndarray) -> np.ndarray:
        """Return for each mass the place at which the running sum of the weights exceeds it, intp[B].

        With masses uniform in [0, total), a place is drawn with probability weight / total. A place of weight 0 is
        never returned while another is left.

        Args:
            masses: float64[B], at least 0; those of `total` or more are taken for a little less.
        """
        running = np.add.accumulate(self._top)
        # Rounding may leave more mass than there is in sum.
        left = np.minimum(masses, np.nextafter(running[-1], 0.0))
        nodes = running.searchsorted(left, side="right")
        left = left - np.where(nodes > 0, running[nodes - 1], 0.0)
        for children, parents in zip(reversed(self._levels), reversed(self._above), strict=True):
            child, left = _search(children.take(nodes, axis=0), parents[nodes], left)
            nodes = (nodes << _FAN_OUT_BITS) + child
        places: np.ndarray = np.minimum(nodes, self._size - 1)
        return places


def _search(children: np.ndarray, totals: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each mass the child at which the running sum of its row exceeds it, and how much is left there.

    All rows are laid end to end, each as shares of its total: one running sum and one binary search then find all
    children at once, at half the price of a running sum a row.

    Args:
        children: float64[B, FAN_OUT], weights.
        totals: float64[B], sums of the rows, above 0.
        masses: float64[B], at least 0 and about below the totals.
    """
    running = np.add.accumulate((children / totals[:, None]).reshape(-1))
    ends = running[FAN_OUT - 1 :: FAN_OUT]
    wanted = masses / totals
    wanted[1:] += ends[:-1]
    found = running.searchsorted(np.minimum(wanted, np.nextafter(ends, 0.0), out=wanted), side="right")
    wanted -= np.where(found > 0, running[found - 1], 0.0)
    return found & (FAN_OUT - 1), wanted * totals
