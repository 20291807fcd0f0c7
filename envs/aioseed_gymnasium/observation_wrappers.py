"""Wrappers that change what is observed: parts left out, grids in one-hot planes, small grey screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from aioseed.errors import SpaceError

Env = gymnasium.Env[Any, Any]

GRID_SIZES = (11, 6, 4)
"""Kinds of objects, colours and states in a MiniGrid cell; an agent's own cell holds its direction as the state."""
LUMA_256 = np.array([77, 150, 29], np.uint16)
"""How bright red, green and blue are, in 256ths (ITU-R BT.601)."""


class HideVelocities(gymnasium.ObservationWrapper):
    """Keep only some numbers of a flat observation, so that the rest must be remembered.

    Args:
        env: An environment with a one-dimensional Box.
        keep: Indices that stay; by default CartPole's position and angle.

    Raises:
        SpaceError: The observation is no one-dimensional Box, or has no such index.
    """

    def __init__(self, env: Env, keep: Sequence[int] = (0, 2)) -> None:
        super().__init__(env)
        self._keep = list(keep)
        self.observation_space = _kept(env.observation_space, self._keep)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the numbers that stay."""
        return observation[self._keep]


class HideVelocitiesVector(gymnasium.vector.VectorObservationWrapper):
    """Do for a vector environment what `HideVelocities` does for one environment."""

    def __init__(self, env: gymnasium.vector.VectorEnv, keep: Sequence[int] = (0, 2)) -> None:
        super().__init__(env)
        self._keep = list(keep)
        self.single_observation_space = _kept(env.single_observation_space, self._keep)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, env.num_envs)

    def observations(self, observations: np.ndarray) -> np.ndarray:
        """Return the numbers that stay, of every environment."""
        return observations[:, self._keep]


class DropMission(gymnasium.ObservationWrapper):
    """Leave MiniGrid's mission out of the observation: a text has no fixed number of bytes.

    Raises:
        SpaceError: The observation is no Dict with a ``mission``.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        parts = _parts(env.observation_space, "drop_mission", "mission")
        self.observation_space = spaces.Dict({key: space for key, space in parts.items() if key != "mission"})

    def observation(self, observation: Mapping[str, object]) -> dict[str, object]:
        """Return everything else."""
        return {key: part for key, part in observation.items() if key != "mission"}


class OneHotGrid(gymnasium.ObservationWrapper):
    """Show a MiniGrid ``image`` as planes of 0 and 1, and the ``direction`` one-hot, both int8.

    A cell of the image is three indices (kind, colour, state), which mean nothing as numbers; here it is 21 numbers
    (`GRID_SIZES`), three of them 1.

    Raises:
        SpaceError: The observation is no Dict with an ``image`` of uint8[height, width, 3].
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        parts = dict(_parts(env.observation_space, "one_hot_grid", "image"))
        image = parts["image"]
        if not isinstance(image, spaces.Box) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise SpaceError(f"one_hot_grid takes an image of uint8[height, width, 3], this one is {image}")
        parts["image"] = spaces.Box(0, 1, (*image.shape[:2], sum(GRID_SIZES)), np.int8)
        self._directions: np.ndarray | None = None
        direction = parts.get("direction")
        if isinstance(direction, spaces.Discrete):
            self._directions = np.eye(int(direction.n), dtype=np.int8)
            parts["direction"] = spaces.Box(0, 1, (int(direction.n),), np.int8)
        self.observation_space = spaces.Dict(parts)
        self._planes = [np.eye(size, dtype=np.int8) for size in GRID_SIZES]

    def observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the observation with planes."""
        seen = dict(observation)
        cells = seen["image"]
        planes = [plane[cells[..., index]] for index, plane in enumerate(self._planes)]
        seen["image"] = np.concatenate(planes, axis=-1)
        if self._directions is not None:
            seen["direction"] = self._directions[seen["direction"]]
        return seen


class Screen(gymnasium.ObservationWrapper):
    """Observe only a picture, smaller and grey: uint8[height, width, 1], or 3 for colours.

    Each new pixel is the mean of the whole pixels that it stands for, so that nothing between two pixels is lost; where
    the sizes do not divide one another, some stand for one row or column more.

    Args:
        env: An environment that observes a picture uint8[H, W, 3] or uint8[H, W, 1], or a Dict with one.
        height: Of the picture that is sent, at most H.
        width: Of the picture that is sent, at most W.
        grey: One brightness instead of three colours.
        key: Which part of a Dict is the picture; all other parts are left out.

    Raises:
        SpaceError: There is no such picture, or it is smaller.
    """

    def __init__(self, env: Env, height: int = 60, width: int = 80, grey: bool = True, key: str = "screen") -> None:
        super().__init__(env)
        space = env.observation_space
        self._key = key if isinstance(space, spaces.Dict) else None
        source = space if self._key is None else _parts(space, "screen", key)[key]
        if not isinstance(source, spaces.Box) or source.dtype != np.uint8 or source.shape[2:] not in ((1,), (3,)):
            raise SpaceError(f"screen takes a picture of uint8[height, width, 1 or 3], this observation is {source}")
        rows, columns, channels = source.shape
        if not (0 < height <= rows and 0 < width <= columns):
            raise SpaceError(f"screen makes a picture smaller: {height} x {width} is not within {rows} x {columns}")
        self._mixes = grey and channels == 3
        self._rows, self._columns = np.arange(height) * rows // height, np.arange(width) * columns // width
        self._areas = np.outer(np.diff(self._rows, append=rows), np.diff(self._columns, append=columns))
        self.observation_space = spaces.Box(0, 255, (height, width, 1 if grey else channels), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """Return the small picture."""
        picture = observation if self._key is None else observation[self._key]
        if self._mixes:
            return self._shrink(picture @ LUMA_256, 256)[..., None]
        return np.stack([self._shrink(picture[..., channel], 1) for channel in range(picture.shape[2])], axis=-1)

    def _shrink(self, plane: np.ndarray, scale: int) -> np.ndarray:
        """Return uint8[height, width], the means of a plane whose values are `scale` times too large."""
        # Whole numbers: a matrix product would be shorter, and wakes all cores of the machine for each observation.
        sums = np.add.reduceat(np.add.reduceat(plane, self._rows, axis=0, dtype=np.uint32), self._columns, axis=1)
        areas = self._areas * scale
        small: np.ndarray = ((sums + areas // 2) // areas).astype(np.uint8)
        return small


def _parts(space: spaces.Space[Any], name: str, key: str) -> Mapping[str, spaces.Space[Any]]:
    if not isinstance(space, spaces.Dict) or key not in space.spaces:
        raise SpaceError(f"{name} takes a Dict with the key {key}, this observation is {space}")
    parts: Mapping[str, spaces.Space[Any]] = space.spaces
    return parts


def _kept(space: spaces.Space[Any], keep: list[int]) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not all(0 <= i < space.shape[0] for i in keep):
        raise SpaceError(
            f"hide_velocities keeps the numbers {keep} of a one-dimensional Box, this observation is {space}"
        )
    return spaces.Box(space.low[keep], space.high[keep], dtype=space.dtype.type)
