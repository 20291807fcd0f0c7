"""The sum tree against a plain array, whatever is set and drawn in whatever order, and after many operations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.experience.replay.sum_tree import FAN_OUT, TOP_NODES, SumTree

TWO_LEVELS = TOP_NODES * FAN_OUT + 1
"""The smallest tree with two levels below the uppermost."""
SIZES = [1, 2, FAN_OUT - 1, FAN_OUT, FAN_OUT + 1, FAN_OUT**2 + 5, TWO_LEVELS]
change = st.tuples(st.integers(0, 2**30), st.sampled_from([0.0, 1e-9, 1.0, 0.3, 1e6]) | st.floats(0, 1e3))


def check(tree: SumTree, naive: np.ndarray, fractions: np.ndarray) -> None:
    np.testing.assert_array_equal(tree.get(np.arange(len(naive))), naive)
    exact = math.fsum(naive[naive > 0])
    np.testing.assert_allclose(tree.total, exact, rtol=1e-14)
    if exact == 0:
        return
    masses = fractions * tree.total
    places = tree.find(fractions)
    assert np.all(naive[places] > 0)
    running = np.concatenate([[0.0], np.cumsum(naive)])
    slack = 1e-12 * exact
    assert np.all(running[places] <= masses + slack)
    assert np.all(running[places + 1] >= masses - slack)


@pytest.mark.parametrize("size", SIZES)
@given(changes=st.lists(st.lists(change, min_size=1, max_size=5), max_size=6), seed=st.integers(0, 99))
def test_the_tree_is_the_array(size, changes, seed) -> None:
    tree, naive, highest = SumTree(size), np.zeros(size), 0.0
    fractions = np.concatenate([[0.0, 1.0], np.random.default_rng(seed).random(20)])
    for batch in changes:
        places = np.array([place % size for place, _ in batch])
        weights = np.array([weight for _, weight in batch])
        tree.set(places, weights)
        for place, weight in zip(places, weights, strict=True):
            naive[place] = weight
        highest = max(highest, *weights)
        assert tree.highest == highest, "of all that were ever set"
        check(tree, naive, fractions)


def test_a_large_tree_without_a_gap_is_the_array() -> None:
    size = 2 * TWO_LEVELS
    tree, naive, generator = SumTree(size), np.zeros(size), np.random.default_rng(0)
    for places in (np.arange(size), generator.integers(0, size, 1000)):
        naive[places] = generator.random(len(places))
        tree.set(places, naive[places])
        check(tree, naive, generator.random(1000))


def test_sums_are_exact_after_10_million_operations() -> None:
    """Sums are recomputed, never corrected: what they are depends on the weights alone, not on how they came about."""
    size, batch = 3000, 20_000
    tree, naive = SumTree(size), np.zeros(size)
    generator = np.random.default_rng(0)
    for _ in range(10_000_000 // batch):
        places, weights = generator.integers(0, size, batch), 10 ** generator.uniform(-9, 9, batch)
        tree.set(places, weights)
        naive[places] = weights
    fresh = SumTree(size)
    fresh.set(np.arange(size), naive)
    assert tree.total == fresh.total
    check(tree, naive, generator.random(1000))


def test_drawing_follows_the_weights() -> None:
    tree = SumTree(100)
    tree.set(np.array([3, 70]), np.array([0.1, 0.9]))
    places = tree.find(np.random.default_rng(0).random(10_000))
    counts = np.bincount(places, minlength=100)
    assert counts[3] + counts[70] == 10_000 and abs(counts[3] - 1000) < 4 * np.sqrt(900)


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_refused_and_nothing_changes(wrong) -> None:
    tree = SumTree(4)
    tree.set(np.arange(4), np.ones(4))
    with pytest.raises(ValueError, match="weights"):
        tree.set(np.array([0, 1]), np.array([5.0, wrong]))
    assert tree.total == 4
