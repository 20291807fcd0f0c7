"""Gymnasium spaces as specs: what can be sent, in which dtype, and where each leaf lies in an observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from gymnasium import spaces

from aioseed.errors import SpaceError
from aioseed.specs import (
    MAX_RANK,
    NUMERIC_DTYPES,
    ActionSpec,
    ArraySpec,
    ObservationSpec,
    discrete,
    multi_discrete,
)

SentDtype: TypeAlias = "Callable[[np.dtype[np.generic]], str]"
"""Gives the dtype in which arrays of a dtype travel."""

Space: TypeAlias = "spaces.Space[object]"


class Leaf(NamedTuple):
    """Place one array of an observation.

    Attributes:
        name: Dotted path for messages, for example ``observation.camera``.
        keys: Keys and indices that lead from an observation to this leaf.
        array: dtype and shape as they travel.
        start: Lowest value of a discrete leaf, of shape ``array.shape``; taken off, so that all start at 0. None for 0.
    """

    name: str
    keys: tuple[str | int, ...]
    array: ArraySpec
    start: np.ndarray | None


def read_observation_space(space: Space, sent_dtype: SentDtype) -> tuple[ObservationSpec, tuple[Leaf, ...]]:
    """Return the spec of an observation and its leaves in the order of `aioseed.specs.flatten`.

    Raises:
        SpaceError: A part of the space has no fixed number of bytes.
    """
    leaves: list[Leaf] = []
    spec = _read(space, "observation", (), sent_dtype, leaves)
    return spec, tuple(leaves)


def read_action_space(space: Space) -> ActionSpec:
    """Return the spec of an action.

    Raises:
        SpaceError: The action is not one array of choices or of real numbers.
    """
    if isinstance(space, spaces.Discrete):
        return discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return multi_discrete(space.nvec.ravel().tolist())
    if isinstance(space, spaces.MultiBinary):
        return multi_discrete([2] * int(np.prod(space.shape)))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(bound.ravel().tolist()) for bound in (space.low, space.high))
        return ActionSpec("box", ArraySpec("float32", tuple(space.shape)), low=low, high=high)
    if isinstance(space, spaces.Box):
        raise SpaceError(
            f"the action is a Box of {space.dtype}, and actions are choices or real numbers: "
            "make it a MultiDiscrete with a wrapper (environment.options.wrappers)"
        )
    raise SpaceError(
        f"the action is a {type(space).__name__} space, and an action is one array (Discrete, MultiDiscrete, "
        "MultiBinary or Box): flatten it with a wrapper (environment.options.wrappers)"
    )


def _read(
    space: Space, name: str, keys: tuple[str | int, ...], sent_dtype: SentDtype, leaves: list[Leaf]
) -> ObservationSpec:
    if isinstance(space, spaces.Dict):
        wrong = next((key for key in space.spaces if not isinstance(key, str)), None)
        if wrong is not None:
            raise SpaceError(f"{name} has the key {wrong!r}, and keys are texts: rename it with a wrapper")
        branches = sorted(space.spaces.items())
        return {key: _read(branch, f"{name}.{key}", (*keys, key), sent_dtype, leaves) for key, branch in branches}
    if isinstance(space, spaces.Tuple):
        numbered = enumerate(space.spaces)
        return tuple(_read(branch, f"{name}.{i}", (*keys, i), sent_dtype, leaves) for i, branch in numbered)
    array = _array(space, name, sent_dtype)
    leaves.append(Leaf(name, keys, array, _start(space, array)))
    return array


def _array(space: Space, name: str, sent_dtype: SentDtype) -> ArraySpec:
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise SpaceError(
            f"{name} is a {type(space).__name__} space, which has no fixed number of bytes: turn it into a Box of "
            f"fixed shape with a wrapper (environment.options.wrappers){_or_leave_it_out(name)}"
        )
    dtype = sent_dtype(np.dtype(space.dtype))
    shape = tuple(int(size) for size in space.shape or ())
    if dtype not in NUMERIC_DTYPES:
        raise SpaceError(f"{name} has the dtype {dtype}, which cannot be sent: convert it with a wrapper")
    if len(shape) > MAX_RANK:
        raise SpaceError(
            f"{name} has {len(shape)} dimensions, at most {MAX_RANK} can be sent: reshape it with a wrapper"
        )
    return ArraySpec(dtype, shape)


def _or_leave_it_out(name: str) -> str:
    """Return Gymnasium's own remedy for a part of a dict or tuple: its wrapper looks at no deeper ones."""
    return ", or leave it out with the wrapper FilterObservation" if name.count(".") == 1 else ""


def _start(space: Space, array: ArraySpec) -> np.ndarray | None:
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return None
    start = np.asarray(space.start).astype(array.numpy_dtype)
    return start if start.any() else None
