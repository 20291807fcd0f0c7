"""Find the rows that no network, unroll or replay may see: those that are not finite."""

from __future__ import annotations

import numpy as np

from aioseed.types import StepColumns

_NONE = np.zeros(0, np.intp)


def nonfinite_rows(columns: StepColumns, count: int) -> np.ndarray:
    """Return which of the first `count` rows have a reward or an observation that is not finite, ascending."""
    bad = None
    for column in (columns.reward, *columns.observation):
        if column.dtype.kind != "f":
            continue
        finite = np.isfinite(column[:count])
        if np.count_nonzero(finite) < finite.size:  # on batches a quarter of what `all` costs
            here = ~finite.reshape(count, -1).all(axis=1)
            bad = here if bad is None else bad | here
    return _NONE if bad is None else np.flatnonzero(bad)


def blank(columns: StepColumns, rows: np.ndarray) -> None:
    """Replace what is not finite in `rows` by nothing: padded rows hold anything but that."""
    for column in (columns.reward, *columns.observation):
        if column.dtype.kind == "f":
            column[rows] = 0
