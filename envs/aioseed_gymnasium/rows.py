"""Observations into columns: the views of a group's columns, and the copies and checks that every row passes.

The copies are arranged so that NumPy does the loop over environments and checks shapes and dtypes on its way: checks
row by row in Python are made only at a reset, or to find out who is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import cast

import numpy as np

from aioseed.types import StepColumns
from aioseed_gymnasium.spaces import Leaf

_FALSE = b"\0"


class LeafRows:
    """Write one leaf of E observations into its column."""

    def __init__(self, leaf: Leaf, column: np.ndarray, count: int) -> None:
        shape = leaf.array.shape
        if column.shape[1:] != shape or column.dtype != leaf.array.numpy_dtype or not column.flags.c_contiguous:
            raise ValueError(f"the column of {leaf.name} must be a C-contiguous {leaf.array.dtype}[E, *{shape}]")
        self.leaf = leaf
        self.rows = column[:count]
        self._takes = [cast("Callable[[object], object]", itemgetter(key)) for key in leaf.keys]
        self._joined = self.rows.reshape((count * shape[0], *shape[1:])) if shape else None
        self._lengths = {shape[0]} if shape else set()
        self._finite = FiniteCheck(self.rows) if self.rows.dtype.kind == "f" else None

    def value_in(self, observation: object) -> object:
        """Return this leaf of one observation, or of a batch of a vector environment."""
        for take in self._takes:
            observation = take(observation)
        return observation

    def write_each(self, observations: Sequence[object]) -> None:
        """Write one observation an environment.

        Raises:
            Exception: Whatever NumPy or an odd observation raises; `fault_in` tells which observation it is.
        """
        values: Iterable[object] = observations
        for take in self._takes:
            values = map(take, values)
        if self._joined is not None:
            # One call for all rows. NumPy refuses another rank or inner shape, and a cast that loses more than
            # precision; but rows of other lengths only where their total is wrong.
            found = list(values)
            if set(map(len, found)) != self._lengths:  # type: ignore[arg-type]
                raise ValueError(f"{self.leaf.name} has other lengths than the space says")
            np.concatenate(found, out=self._joined, casting="same_kind")  # type: ignore[call-overload]
        else:
            self._copy(np.array(list(values)))
        if self.leaf.start is not None:
            self.rows -= self.leaf.start

    def write_batch(self, observation: object) -> None:
        """Write the observation of a vector environment, whose leaves are ``[E, ...]``; raises as `write_each`."""
        self._copy(np.asarray(self.value_in(observation)))
        if self.leaf.start is not None:
            self.rows -= self.leaf.start

    def write_one(self, row: int, value: object) -> None:
        """Write this leaf of one row; `fault_in` was asked before."""
        self.rows[row] = np.asarray(value) if self.leaf.start is None else np.asarray(value) - self.leaf.start

    def not_finite(self) -> bool:
        """Say whether a number in the column is infinite or no number."""
        return self._finite is not None and self._finite.fails()

    def _copy(self, values: np.ndarray) -> None:
        if values.shape != self.rows.shape:
            raise ValueError(f"{self.leaf.name} has the shape {values.shape}, {self.rows.shape} is needed")
        np.copyto(self.rows, values, casting="same_kind")


class FiniteCheck:
    """Look for numbers that are not finite in one float array, again and again, without allocating."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values.reshape(-1)
        self._mask = np.empty(self._values.shape, bool)

    def fails(self) -> bool:
        """Say whether a number is infinite or no number."""
        # Searching bytes takes a tenth of the time of `mask.all()` for the few rows of a group.
        return _FALSE in np.isfinite(self._values, out=self._mask).tobytes()


class Rows:
    """Hold the views of one set of columns that a group writes into."""

    def __init__(self, columns: StepColumns, leaves: Sequence[Leaf], count: int) -> None:
        if len(columns.observation) != len(leaves) or len(columns.flags) < count:
            raise ValueError(f"columns for {count} environments with {len(leaves)} observation leaves are needed")
        self.columns = columns
        self.count = count
        self.flags = columns.flags[:count]
        self.reward = columns.reward[:count]
        self.leaves = [LeafRows(leaf, column, count) for leaf, column in zip(leaves, columns.observation, strict=True)]
        self._reward_finite = FiniteCheck(self.reward)

    def write_one(self, row: int, observation: object) -> None:
        """Write the observation of one row; `fault_in` was asked before."""
        for leaf in self.leaves:
            leaf.write_one(row, leaf.value_in(observation))

    def not_finite(self) -> np.ndarray:
        """Return the rows, ascending, that hold a number that is not finite."""
        if not (self._reward_finite.fails() or any(leaf.not_finite() for leaf in self.leaves)):
            return _NONE
        finite = np.isfinite(self.reward)
        for leaf in self.leaves:
            finite &= np.isfinite(leaf.rows.reshape(self.count, -1)).all(axis=1)
        return np.flatnonzero(~finite)

    def row_is_finite(self, row: int) -> bool:
        """Say whether all numbers of one row's observation are finite."""
        return all(bool(np.isfinite(leaf.rows[row]).all()) for leaf in self.leaves)


_NONE = np.empty(0, np.intp)


def fault_in(leaves: Iterable[Leaf], observation: object) -> str:
    """Return why one observation cannot be written, or an empty string."""
    for leaf in leaves:
        value = observation
        try:
            for key in leaf.keys:
                value = cast("Mapping[str | int, object]", value)[key]
        except (KeyError, IndexError, TypeError):
            return f"{leaf.name} is not there"
        fault = _fault_of(leaf, value)
        if fault:
            return fault
    return ""


def _fault_of(leaf: Leaf, value: object) -> str:
    name, array = leaf.name, leaf.array
    try:
        given = np.asarray(value)
    except ValueError:
        return f"{name} is not an array of fixed shape"
    if given.shape != array.shape:
        return f"{name} has the shape {given.shape}, the space says {array.shape}"
    if not np.can_cast(given.dtype, array.numpy_dtype, casting="same_kind"):
        return f"{name} has the dtype {given.dtype}, the space says {array.dtype}"
    return ""


def share_memory(observations: Sequence[object]) -> bool:
    """Say whether two observations begin with the same array memory, so that one would overwrite the other."""
    addresses = [address for observation in observations for address in _addresses(observation)]
    return len(set(addresses)) < len(addresses)


def _addresses(observation: object) -> Iterable[int]:
    if isinstance(observation, np.ndarray):
        return [observation.__array_interface__["data"][0]]
    if isinstance(observation, Mapping):
        observation = list(observation.values())
    if isinstance(observation, list | tuple):
        return [address for branch in observation for address in _addresses(branch)]
    return []
