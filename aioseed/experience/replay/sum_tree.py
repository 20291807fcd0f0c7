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
_SHIFT = np.array(_FAN_OUT_BITS)  # to NumPy an array without axes is cheaper than a number, which it has to make one of
FAN_OUT = 1 << _FAN_OUT_BITS
TOP_NODES = 2048
"""Most nodes of the uppermost level: summing them up costs a few microseconds a batch."""
_ONES = np.ones(FAN_OUT)


class SumTree:
    """Hold non-negative float64 weights. Thread: one."""

    def __init__(self, size: int) -> None:
        """Make room for `size` weights, at least one, all 0."""
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
        weights = np.asarray(weights, np.float64)
        # On batches `argmax` costs a third of `max`, and `dot` half of `@`. A NaN is both highest and lowest.
        lowest, highest = weights[weights.argmin()], float(weights[weights.argmax()])
        if not (lowest >= 0 and highest < math.inf):
            raise ValueError("weights must be finite and not negative")
        self.highest = max(self.highest, highest)
        self._leaves[places] = weights
        nodes = places
        for children, parents in zip(self._levels, self._above, strict=True):
            nodes = nodes >> _SHIFT
            # A node named twice is computed twice from the same children: cheaper than looking for such.
            parents[nodes] = children.take(nodes, axis=0).dot(_ONES)

    def find(self, shares: np.ndarray) -> np.ndarray:
        """Return for each share of the total the place at which the running sum of the weights exceeds it, intp[B].

        With shares uniform in [0, 1), a place is drawn with probability weight / total. A place of weight 0 is never
        returned while another is left.

        Args:
            shares: float64[B], between 0 and 1; those of 1 are taken for a little less.
        """
        # Weights are added up in order, so that one of 0 never raises a sum and is never found.
        running = np.zeros(len(self._top) + 1)
        np.add.accumulate(self._top, out=running[1:])
        left = np.minimum(shares * running[-1], np.nextafter(running[-1], 0.0))
        nodes: np.ndarray = running[1:].searchsorted(left, side="right")
        left -= running[nodes]
        for level in range(len(self._levels) - 1, -1, -1):
            running = np.add.accumulate(self._levels[level].take(nodes, axis=0), axis=1)
            # What rounding left beyond the sum of a row is taken for a little less than it.
            left = np.minimum(left, np.nextafter(running[:, -1], 0.0))
            child = (running > left[:, None]).argmax(axis=1)
            nodes = (nodes << _SHIFT) + child
            if level:
                before = running[np.arange(len(child)), child - 1]
                left -= np.where(child == 0, 0.0, before)
        return nodes
