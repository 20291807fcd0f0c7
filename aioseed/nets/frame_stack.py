"""Frame stacking on the learner (Mnih et al. 2015, Nature 518): only the newest frame crosses the wire."""

from __future__ import annotations

from functools import partial
from typing import Literal, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp

from aioseed.nets.network import PyTree
from aioseed.nets.transforms import Observation, Transform, learns_nothing, transform_leaves
from aioseed.specs import ArraySpec, ObservationSpec

Pad: TypeAlias = Literal["first", "zero"]


def frame_stack(
    observation: ObservationSpec, *, n: int = 4, pad: Pad = "first", only: tuple[str, ...] = ()
) -> Transform:
    """Join each frame with the `n` - 1 frames before it along the last axis, the oldest first; never across episodes.

    An image [H, W, C] becomes [H, W, n * C]. The state is the frames before, ``[n - 1, *shape]`` in their own dtype.

    Args:
        observation: Leaves of at least one axis.
        n: Frames of a stack, at least 1.
        pad: What stands for frames before the first of an episode: that first frame, or zeros.
        only: Leaves to stack, by their dotted paths; empty for all.

    Raises:
        ValueError: An option is not one of those above, or a leaf is a single number.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a positive integer, not {n!r}")
    if pad not in get_args(Pad):
        raise ValueError(f"pad must be one of {', '.join(get_args(Pad))}, not {pad!r}")
    return transform_leaves(observation, only, partial(_stack, n, pad))


def _stack(n: int, pad: Pad, frame: ArraySpec) -> Transform:
    if not frame.shape:
        raise ValueError("a single number cannot be stacked: it has no axis along which")

    def initial_state() -> PyTree:
        return jnp.zeros((n - 1, *frame.shape), frame.dtype)

    def unroll(params: PyTree, state: PyTree, observation: Observation, first: jax.Array) -> tuple[Observation, PyTree]:
        frames = cast("jax.Array", observation)  # [R, B, *shape]
        rows = frames.shape[0]
        known = jnp.concatenate([jnp.moveaxis(state, 1, 0), frames])  # [n - 1 + R, B, *shape]
        stack, began = [frames], jnp.zeros_like(first)
        for lag in range(1, n):
            # Whether the episode began less than `lag` rows ago: there is no frame of it as old as that.
            began = began | _later(first, lag - 1)
            padding = stack[-1] if pad == "first" else jnp.zeros_like(frames)
            missing = began.reshape(began.shape + (1,) * len(frame.shape))
            stack.append(jnp.where(missing, padding, known[n - 1 - lag : n - 1 - lag + rows]))
        stack.reverse()
        last = jnp.stack([lagged[-1] for lagged in stack[1:]], axis=1) if n > 1 else state
        return jnp.concatenate(stack, axis=-1), last

    def step(params: PyTree, state: PyTree, observation: Observation, first: jax.Array) -> tuple[Observation, PyTree]:
        stacked, state = unroll(params, state, cast("jax.Array", observation)[None], first[None])
        return cast("jax.Array", stacked)[0], state

    out = ArraySpec(frame.dtype, (*frame.shape[:-1], n * frame.shape[-1]))
    return Transform(out, lambda: (), initial_state, step, unroll, learns_nothing)


def _later(first: jax.Array, rows: int) -> jax.Array:
    """Return bool[R, B], `first` moved down by some rows; nothing begins above the rows that are there."""
    if rows == 0:
        return first
    return jnp.concatenate([jnp.zeros_like(first[:rows]), first[: max(first.shape[0] - rows, 0)]])[: first.shape[0]]
