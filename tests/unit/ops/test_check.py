"""Wrong ranks, lengths and dtypes are refused while tracing, by name."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from aioseed.ops._check import check_kind, check_last_axis, check_length, check_rank


def test_a_wrong_rank_is_named() -> None:
    check_rank(1, rewards=jnp.zeros(3))
    with pytest.raises(ValueError, match=r"rewards must have 1 axes, it has shape \(3, 2\)"):
        check_rank(1, rewards=jnp.zeros((3, 2)))


def test_a_wrong_dtype_is_named() -> None:
    check_kind(jnp.floating, rewards=jnp.zeros(3))
    with pytest.raises(TypeError, match="rewards must be floating, it is int32"):
        check_kind(jnp.floating, rewards=jnp.zeros(3, jnp.int32))


def test_a_wrong_length_is_named() -> None:
    check_length(3, rewards=jnp.zeros(3))
    with pytest.raises(ValueError, match="rewards must be 3 long"):
        check_length(3, rewards=jnp.zeros(4))


def test_a_wrong_last_axis_is_named() -> None:
    check_last_axis(2, params=jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="params must end in an axis of 2"):
        check_last_axis(2, params=jnp.zeros((2, 4)))
