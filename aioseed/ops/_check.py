"""Check ranks, dtypes and axes of arrays while a function is traced: the compiled program pays nothing for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def check_rank(rank: int, **arrays: jax.Array) -> None:
    """Raise ValueError unless every array has `rank` axes."""
    for name, array in arrays.items():
        if jnp.ndim(array) != rank:
            raise ValueError(f"{name} must have {rank} axes, it has shape {jnp.shape(array)}")


def check_kind(kind: DTypeLike, **arrays: jax.Array) -> None:
    """Raise TypeError unless every array's dtype is of `kind`, for example ``jnp.floating`` or ``jnp.bool_``."""
    for name, array in arrays.items():
        if not jnp.issubdtype(jnp.result_type(array), kind):
            raise TypeError(f"{name} must be {_name(kind)}, it is {jnp.result_type(array)}")


def check_length(length: int, **arrays: jax.Array) -> None:
    """Raise ValueError unless the first axis of every array is `length` long."""
    for name, array in arrays.items():
        if jnp.ndim(array) == 0 or jnp.shape(array)[0] != length:
            raise ValueError(f"{name} must be {length} long, it has shape {jnp.shape(array)}")


def check_last_axis(size: int, **arrays: jax.Array) -> None:
    """Raise ValueError unless the last axis of every array holds `size` elements."""
    for name, array in arrays.items():
        if jnp.ndim(array) == 0 or jnp.shape(array)[-1] != size:
            raise ValueError(f"{name} must end in an axis of {size}, it has shape {jnp.shape(array)}")


def _name(kind: DTypeLike) -> str:
    return str(getattr(kind, "__name__", kind))
