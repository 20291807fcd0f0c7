"""Actions from the wire as Gymnasium wants them: with the space's own start, shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from gymnasium import spaces

from aioseed.specs import ActionSpec
from aioseed_gymnasium.spaces import Space, read_action_space


class ActionCodec:
    """Turn ``[E, *action shape]`` columns, which start at 0, into the actions of a space."""

    def __init__(self, space: Space) -> None:
        self.spec: ActionSpec = read_action_space(space)
        self._shape: tuple[int, ...] = tuple(space.shape or ())
        self._dtype = np.dtype(space.dtype)
        self._start = np.asarray(getattr(space, "start", 0)).astype(self._dtype)
        self._scalar = isinstance(space, spaces.Discrete)
        self._from_zero = not self._start.any()
        # What travels as float32 may lie a rounding beyond bounds of float64.
        wide = isinstance(space, spaces.Box) and self._dtype.kind == "f" and self._dtype.itemsize > 4
        self._bounds = (space.low, space.high) if wide and isinstance(space, spaces.Box) else None

    def each(self, actions: np.ndarray) -> Sequence[object]:
        """Return one action an environment; Python integers for Discrete, which environments check fastest."""
        if self._scalar and self._from_zero:
            return cast("list[object]", actions.tolist())
        batch = self.batch(actions)
        return cast("list[object]", batch.tolist()) if self._scalar else list(batch)

    def batch(self, actions: np.ndarray) -> np.ndarray:
        """Return a new array of one batch of actions for a vector environment."""
        batch: np.ndarray = actions.reshape((len(actions), *self._shape)).astype(self._dtype)
        if self._bounds is not None:
            np.clip(batch, *self._bounds, out=batch)
        return batch if self._from_zero else batch + self._start
