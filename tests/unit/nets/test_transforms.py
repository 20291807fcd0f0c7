"""Transforms: literal oracles, stepping equals unrolling, chains, and leaves by name."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aioseed.nets.frame_stack import frame_stack
from aioseed.nets.leaf_transforms import Moments, normalize, scale, tame, unpack_bits
from aioseed.nets.transforms import Transform, chain
from aioseed.specs import ArraySpec

FRAME = ArraySpec("uint8", (2, 1))
ROWS, BATCH, CUT = 7, 3, 3
FEW = settings(max_examples=20, deadline=None)

FRAMES = arrays.arrays(np.uint8, (ROWS, BATCH, 2, 1))
FIRSTS = arrays.arrays(np.bool_, (ROWS, BATCH))


def literal_stack(frames: np.ndarray, first: np.ndarray, n: int, pad: str) -> np.ndarray:
    """Stack row by row as one reads it: a list of frames that an episode's first row empties."""
    stacked = np.zeros((*frames.shape[:-1], n * frames.shape[-1]), frames.dtype)
    for b in range(frames.shape[1]):
        known: list[np.ndarray] = []
        for t in range(len(frames)):
            if first[t, b] or not known:
                known = [frames[t, b] if pad == "first" else np.zeros_like(frames[t, b])] * (n - 1)
            known = [*known, frames[t, b]][-n:]
            stacked[t, b] = np.concatenate(known, axis=-1)
    return stacked


@cache
def made(n: int, pad: str) -> tuple[Transform, object, object]:
    transform = frame_stack(FRAME, n=n, pad=pad)
    return transform, jax.jit(transform.step), jax.jit(transform.unroll)


def fresh(transform: Transform) -> object:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (BATCH, *leaf.shape)), transform.initial_state())


@pytest.mark.parametrize(("n", "pad"), [(4, "first"), (4, "zero"), (9, "first")])
@FEW
@given(frames=FRAMES, first=FIRSTS)
def test_a_stack_is_the_frames_of_its_own_episode(n, pad, frames, first):
    first[0] = True
    transform, _, unroll = made(n, pad)
    stacked, _ = unroll(transform.init(), fresh(transform), frames, first)
    np.testing.assert_array_equal(stacked, literal_stack(frames, first, n, pad))
    assert transform.observation == ArraySpec("uint8", (2, n))


@pytest.mark.parametrize("pad", ["first", "zero"])
@FEW
@given(frames=FRAMES, first=FIRSTS)
def test_stepping_is_unrolling_and_an_unroll_goes_on_where_the_last_one_ended(pad, frames, first):
    first[0] = True
    transform, step, unroll = made(4, pad)
    whole, last = unroll(transform.init(), fresh(transform), frames, first)
    state = fresh(transform)
    for t in range(ROWS):
        if t == CUT:  # what was stored with the unroll that begins here
            rest, _ = unroll(transform.init(), state, frames[CUT:], first[CUT:])
        observation, state = step(transform.init(), state, frames[t], first[t])
        np.testing.assert_array_equal(observation, whole[t])
    np.testing.assert_array_equal(rest, whole[CUT:])
    jax.tree.map(np.testing.assert_array_equal, state, last)


def test_the_newest_frame_is_last_as_in_the_tests_of_seed_rl_but_mirrored():
    frames = np.arange(1, 9, dtype=np.uint8).reshape(8, 1, 1)
    first = np.zeros((8, 1), bool)
    first[[0, 4]] = True
    transform = frame_stack(ArraySpec("uint8", (1,)), n=4, pad="zero")
    state = jax.tree.map(lambda leaf: leaf[None], transform.initial_state())
    stacked, _ = transform.unroll(transform.init(), state, jnp.asarray(frames), jnp.asarray(first))
    assert np.asarray(stacked)[:, 0].tolist() == [
        [0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4],
        [0, 0, 0, 5], [0, 0, 5, 6], [0, 5, 6, 7], [5, 6, 7, 8],
    ]  # fmt: skip


@FEW
@given(arrays.arrays(np.uint8, (2, 3, 11), elements=st.integers(0, 1)))
def test_bits_come_out_as_numpy_packed_them(planes):
    transform = unpack_bits(ArraySpec("uint8", (3, 2)), size=11)
    found, _ = transform.step(((),), ((),), jnp.asarray(np.packbits(planes, axis=-1)), jnp.zeros(2, bool))
    np.testing.assert_array_equal(found, planes * 255)
    assert transform.observation == ArraySpec("uint8", (3, 11))


def test_pixels_become_numbers():
    transform = scale(ArraySpec("uint8", (2,)))
    found, _ = transform.step(((),), ((),), jnp.asarray([[0, 255]], jnp.uint8), jnp.zeros(1, bool))
    np.testing.assert_allclose(found, [[0.0, 1.0]], rtol=1e-6)
    assert found.dtype == jnp.float32


@FEW
@given(
    arrays.arrays(np.float32, (3, 4, 2, 2), elements=st.floats(-50, 50, width=32)),  # none is wild
    arrays.arrays(np.bool_, (3, 4, 2)),
)
def test_statistics_of_batches_are_those_of_all_rows_at_once(batches, counted):
    transform = normalize(ArraySpec("float32", (2,)), clip=3.0)
    params = transform.init()
    for batch, fresh_rows in zip(batches, counted, strict=True):
        params = transform.observe(params, ((),), jnp.asarray(batch), jnp.zeros((4, 2), bool), jnp.asarray(fresh_rows))
    rows = batches[counted].astype(np.float64)
    mean, deviation = (rows.mean(0), rows.std(0)) if len(rows) else (np.zeros(2), np.ones(2))
    (moments,) = params
    assert float(moments.rows) == len(rows)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(moments.variance), deviation, rtol=1e-3, atol=2e-2)
    found, _ = transform.step(params, ((),), jnp.asarray(batches[0, 0]), jnp.zeros(2, bool))
    used = np.sqrt(np.asarray(moments.variance, np.float64)) + 1e-3
    literal = np.clip((batches[0, 0] - np.asarray(moments.mean, np.float64)) / used, -3, 3)
    np.testing.assert_allclose(found, literal, rtol=1e-3, atol=1e-3)


def test_statistics_stay_what_they_are_after_billions_of_rows_of_the_same():
    """They lost up to a ten-millionth of the variance at every step, and a run of weeks makes many millions."""
    spread = np.random.default_rng(0).uniform(0.5, 2.0, 64).astype(np.float32)
    observe = normalize(ArraySpec("float32", (64,))).observe
    rows = jnp.asarray(np.stack([np.tile(spread, (80, 1)), np.tile(-spread, (80, 1))]))
    no, yes = jnp.zeros((2, 80), bool), jnp.ones((2, 80), bool)
    begun = (Moments(jnp.float32(2.0**32), jnp.zeros(64), jnp.square(spread)),)
    (moments,), _ = jax.lax.scan(lambda params, _: (observe(params, ((),), rows, no, yes), None), begun, length=1000)
    np.testing.assert_allclose(moments.variance, np.square(spread), rtol=1e-6)
    np.testing.assert_allclose(moments.mean, np.zeros(64), atol=1e-6)


@pytest.mark.parametrize("wild", [3.4e38, -1e20])
@pytest.mark.parametrize("at", [0, 50])
def test_one_wild_row_makes_nothing_else_nought_for_ever(wild, at):
    transform, rng = normalize(ArraySpec("float32", (1,))), np.random.default_rng(0)
    params = transform.init()
    for number in range(100):
        rows = rng.normal(3.0, 2.0, (33, 32, 1)).astype(np.float32)
        if number == at:
            rows[3, 4] = wild
        params = transform.observe(
            params, ((),), jnp.asarray(rows), jnp.zeros((33, 32), bool), jnp.ones((33, 32), bool)
        )
    (moments,) = params
    np.testing.assert_allclose(moments.variance, 4.0, rtol=0.6)


def test_a_mark_in_many_rows_of_every_batch_leaves_statistics_finite():
    transform, rng = normalize(ArraySpec("float32", ())), np.random.default_rng(0)
    params, observe = transform.init(), jax.jit(transform.observe)
    no, yes = jnp.zeros((33, 32), bool), jnp.ones((33, 32), bool)
    for _ in range(60):
        rows = rng.normal(size=(33, 32)).astype(np.float32)
        rows[:, ::10] = 3.4e38
        params = observe(params, ((),), jnp.asarray(rows), no, yes)
    assert np.isfinite(params[0].mean) and np.isfinite(params[0].variance)


def test_wild_numbers_are_bounded_about_the_mean_by_the_rows_that_count():
    rng = np.random.default_rng(0)
    numbers = rng.normal(5e4, 0.1, (4, 25, 2)).astype(np.float32)
    numbers[0, 0], numbers[1, 1] = 5e4 + 900, -1e9
    fresh = rng.random((4, 25)) < 0.8
    fresh[0, 0] = fresh[1, 1] = True
    numbers[~fresh] = 1e12
    moments = Moments(jnp.float32(10), jnp.full(2, 5e4), jnp.float32([100.0, 4.0]))
    found = np.asarray(tame(moments, jnp.asarray(numbers), jnp.asarray(fresh)))
    apart = np.abs(numbers[fresh].astype(np.float64) - 5e4)
    away = 100 * (np.array([10.0, 2.0]) + np.exp(np.log1p(apart).mean(0)))
    np.testing.assert_allclose(found[fresh], np.clip(numbers[fresh], 5e4 - away, 5e4 + away), rtol=1e-6)
    assert found[0, 0, 0] == numbers[0, 0, 0] and found[1, 1, 0] < 5e4 - 1000, "one is usual here, the other is wild"


@pytest.mark.parametrize("middle", [0.0, 1e6])
def test_what_has_really_grown_counts_as_it_is(middle):
    transform, rng = normalize(ArraySpec("float32", ())), np.random.default_rng(0)
    no, yes = jnp.zeros((33, 32), bool), jnp.ones((33, 32), bool)
    before, after = np.zeros((33, 32), np.float32), rng.normal(middle, 1e4, (33, 32)).astype(np.float32)
    params = transform.observe(transform.init(), ((),), jnp.asarray(before), no, yes)
    (moments,) = transform.observe(params, ((),), jnp.asarray(after), no, yes)
    both = np.concatenate([before, after]).astype(np.float64)
    np.testing.assert_allclose(moments.mean, both.mean(), rtol=1e-4, atol=1.0)
    np.testing.assert_allclose(moments.variance, both.var(), rtol=1e-3)


def test_a_chain_feeds_each_transform_with_what_the_one_before_gave():
    stack = partial(frame_stack, n=2)
    transform = chain(ArraySpec("uint8", (1,)), [stack, normalize])
    assert transform.observation == ArraySpec("float32", (2,))
    frames = jnp.asarray([[[10]], [[20]], [[40]]], jnp.uint8)
    first = jnp.asarray([[True], [False], [False]])
    state = jax.tree.map(lambda leaf: leaf[None], transform.initial_state())
    params = transform.observe(transform.init(), state, frames, first, jnp.ones((3, 1), bool))
    np.testing.assert_allclose(params[1][0].mean, [(10 + 10 + 20) / 3, (10 + 20 + 40) / 3], rtol=1e-6)


def test_a_transform_that_learns_nothing_gives_its_params_back():
    transform, rows = scale(FRAME), jnp.zeros((3, 1), bool)
    params = transform.init()
    assert transform.observe(params, transform.initial_state(), jnp.zeros((3, 1, 2, 1)), rows, rows) == params


def test_leaves_are_chosen_by_name():
    spec = {"image": ArraySpec("uint8", (1,)), "speed": ArraySpec("float32", ())}
    transform = frame_stack(spec, n=2, only=("image",))
    assert transform.observation == {"image": ArraySpec("uint8", (2,)), "speed": ArraySpec("float32", ())}
    seen = {"image": jnp.asarray([[3]], jnp.uint8), "speed": jnp.asarray([1.5])}
    state = jax.tree.map(lambda leaf: leaf[None], transform.initial_state())
    found, _ = transform.step(transform.init(), state, seen, jnp.asarray([True]))
    assert found["image"].tolist() == [[3, 3]] and found["speed"].tolist() == [1.5]
    with pytest.raises(ValueError, match=r'there is no "imge" in the observation .did you mean "image"'):
        frame_stack(spec, only=("imge",))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: frame_stack(FRAME, n=0), "n must be a positive integer"),
        (lambda: frame_stack(FRAME, pad="last"), "pad must be one of first, zero"),
        (lambda: frame_stack(ArraySpec("float32", ())), "a single number cannot be stacked"),
        (lambda: unpack_bits(FRAME, size=20), "20 bits are 3 bytes of uint8"),
        (lambda: scale(FRAME, factor=0), "factor must be a finite number"),
        (lambda: normalize(FRAME, epsilon=0), "epsilon must be a finite number above 0"),
    ],
)
def test_wrong_options_are_said_so(make, said):
    with pytest.raises(ValueError, match=said):
        make()
