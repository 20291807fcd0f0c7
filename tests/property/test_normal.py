"""For any location and scale, a normal over a box has the whole probability and not more."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.ops.distributions import Sample
from aioseed.ops.normal import clipped_normal, tanh_normal
from aioseed.specs import ActionSpec, ArraySpec

LINE = ActionSpec("box", ArraySpec("float32", (1,)), low=(-1.0,), high=(1.0,))
MAKERS = {"tanh": tanh_normal, "clip": clipped_normal}
POINTS = 4_001

locations = st.floats(-6, 6, width=32)
raw_scales = st.floats(-4, 3, width=32)
both = pytest.mark.parametrize("squash", MAKERS)


@cache
def compiled(squash: str):
    distribution = MAKERS[squash](LINE, std="exp", min_std=1e-3, initial_std=1.001)

    def log_probs(params: jax.Array, drawn: jax.Array) -> jax.Array:
        rows = jnp.broadcast_to(params, (len(drawn), 2))
        return distribution.log_prob(rows, Sample(drawn, (drawn[:, None],)))

    return jax.jit(log_probs), jax.jit(distribution.sample), jax.jit(distribution.entropy)


def std_of(raw: float) -> float:
    return math.exp(raw) + 1e-3


def integral(values: np.ndarray, points: np.ndarray) -> float:
    return float(np.sum((values[1:] + values[:-1]) / 2 * np.diff(points)))


def total(squash: str, loc: float, raw: float) -> float:
    """Return the integral of exp(log_prob) over the actions, with what clipping puts on the two bounds."""
    log_probs, _, _ = compiled(squash)
    params, std = jnp.array([loc, raw], jnp.float32), std_of(raw)
    if squash == "clip":
        drawn = np.linspace(max(-1, loc - 8 * std), min(1, loc + 8 * std), POINTS) if abs(loc) < 1 + 8 * std else None
        edges = np.exp(np.asarray(log_probs(params, jnp.array([-1.0, 1.0])), float)).sum()
        if drawn is None:
            return float(edges)
        drawn = drawn[(drawn > -1) & (drawn < 1)]
        return float(edges) + integral(np.exp(np.asarray(log_probs(params, jnp.asarray(drawn, jnp.float32)))), drawn)
    drawn = np.linspace(loc - 8 * std, loc + 8 * std, POINTS).astype(np.float32).astype(float)
    slope = 2 * (np.log(2) - np.abs(drawn) - np.log1p(np.exp(-2 * np.abs(drawn))))
    found = np.asarray(log_probs(params, jnp.asarray(drawn, jnp.float32)), float)
    return integral(np.exp(found + slope), drawn)


@both
@given(loc=locations, raw=raw_scales)
def test_the_probability_of_all_actions_is_1(squash: str, loc: float, raw: float) -> None:
    assert abs(total(squash, loc, raw) - 1) < 5e-3


@both
@given(loc=locations, raw=raw_scales, uniform=st.floats(0, 1, width=32, exclude_max=True))
def test_every_uniform_gives_a_legal_action_of_finite_log_prob(
    squash: str, loc: float, raw: float, uniform: float
) -> None:
    log_probs, sample, _ = compiled(squash)
    params = jnp.array([loc, raw], jnp.float32)
    drawn = sample(params, jnp.array([uniform]))
    assert -1 <= float(drawn.action[0]) <= 1
    assert np.isfinite(log_probs(params, jnp.repeat(drawn.hidden[0], 2))).all()
    share = NormalDist(loc, std_of(raw)).cdf(float(drawn.hidden[0][0]))
    assert abs(share - uniform) < 1e-3 + 1e-6 / std_of(raw), "a draw is the quantile that its uniform names"


@given(loc=locations, raw=raw_scales)
def test_no_distribution_on_the_box_has_more_entropy_than_the_uniform_one(loc: float, raw: float) -> None:
    _, _, entropy = compiled("tanh")
    assert float(entropy(jnp.array([loc, raw], jnp.float32))) < math.log(2) + 1e-3
