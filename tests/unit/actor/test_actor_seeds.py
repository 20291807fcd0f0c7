from __future__ import annotations

import pytest

from aioseed.actor.seeds import environment_seed

KEPT = {
    (0, 0, 0): 1878776328,
    (0, 0, 1): 1096742443,
    (7, 3, 1): 1927663173,
    (2**63 - 1, 2**32 - 1, 2**64 - 1): 2101248764,
}


@pytest.mark.parametrize(("words", "seed"), KEPT.items())
def test_seeds_are_the_same_as_ever(words: tuple[int, int, int], seed: int) -> None:
    assert environment_seed(*words) == seed


def test_each_word_matters_and_seeds_fit_31_bits() -> None:
    words = [(a, b, c) for a in (0, 1, 2**32) for b in (0, 1, 2**32 - 1) for c in (0, 1, 2**32, 2**40)]
    seeds = {environment_seed(*word) for word in words}
    assert len(seeds) == len(words)
    assert all(0 <= seed < 2**31 for seed in seeds)
