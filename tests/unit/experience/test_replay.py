"""Replay: what is drawn is what was inserted, by its weight, and who has gone is not given a priority."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aioseed.errors import ConfigError
from aioseed.experience.layout import UnrollBuffer, allocate_buffer, unroll_bytes
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.memory import check_memory
from aioseed.experience.replay.replay import MAX_PRIORITY, MIN_PRIORITY, SPARE_SHARE, Replay
from aioseed.specs import ArraySpec
from aioseed.types import UnrollLayout

LAYOUT = UnrollLayout(
    observation=(ArraySpec("uint8", (20, 20)), ArraySpec("float32", ())),
    action=ArraySpec("int32", ()),
    extras=(ArraySpec("float32", (2,)),),
    state=(ArraySpec("float32", (3,)),),
    unroll_steps=2,
    overlap_steps=1,
)


def unrolls(first: int, count: int) -> UnrollBuffer:
    """Return unrolls whose every number says which unroll and which row it is."""
    buffer = allocate_buffer(LAYOUT, count)
    for b in range(count):
        number = first + b
        columns, identity = buffer.batch.columns, buffer.batch.identity
        for t in range(LAYOUT.rows):
            columns.observation[0][t, b] = (number + 7 * t) % 256
            columns.observation[1][t, b] = number + t / 10
            columns.extras[0][t, b] = [number, t]
            columns.reward[t, b], columns.action[t, b], columns.flags[t, b] = number, t, number % 8
        columns.initial_state[0][b] = number
        identity.slot[b], identity.transitions[b] = number, number % 3
    return buffer


def replay(**options: Any) -> Replay:
    return Replay(LAYOUT, ReplayConfig(**{"capacity_unrolls": 10, "min_unrolls": 1, **options}), seed=0)


def test_what_is_copied_out_is_what_was_inserted_bit_for_bit() -> None:
    held = replay()
    held.insert(unrolls(0, 4), None)
    held.insert(unrolls(4, 3), None)
    numbers = np.array([6, 0, 0, 3, 5])
    found, wanted = allocate_buffer(LAYOUT, 5), unrolls(0, 7)
    held.blocks.copy_out(numbers, found)
    for mine, its in zip(found.grids, wanted.grids, strict=True):
        assert np.ascontiguousarray(mine).tobytes() == np.ascontiguousarray(its[:, numbers]).tobytes()
    np.testing.assert_array_equal(found.batch.columns.initial_state[0][:, 0], numbers)
    np.testing.assert_array_equal(found.batch.identity.slot, numbers)


@pytest.mark.parametrize("capacity", [1, 2, 31, 64, 100])
def test_the_newest_are_held_and_what_goes_is_accounted_for(capacity: int) -> None:
    held = replay(capacity_unrolls=capacity)
    gone = 0
    for first in range(0, 200, 5):
        gone += held.insert(unrolls(first, 5), None)
        fullest = held.blocks.places
        assert fullest - held.blocks.block_unrolls < len(held) <= fullest <= capacity or len(held) == first + 5
        assert gone + held.transitions() == sum(number % 3 for number in range(first + 5))
    found = allocate_buffer(LAYOUT, len(held))
    held.blocks.copy_out(np.arange(held.blocks.oldest, held.blocks.next), found)
    np.testing.assert_array_equal(found.batch.identity.slot, np.arange(200 - len(held), 200))


def test_a_priority_for_one_that_has_gone_finds_nobody() -> None:
    held = replay(capacity_unrolls=4)
    held.insert(unrolls(0, 4), np.ones(4))
    held.insert(unrolls(4, 2), np.ones(2))
    held.update(np.array([0, 1, 2]), np.array([100.0, 100.0, 3.0]))
    np.testing.assert_allclose(held.priorities(), [3**0.9, 1, 1, 1])


def test_a_priority_that_is_not_finite_changes_nothing_and_a_small_one_stays_possible() -> None:
    held = replay()
    held.insert(unrolls(0, 5), np.array([2.0, np.nan, 0.0, np.inf, 1e22]))
    np.testing.assert_allclose(held.priorities(), np.array([2.0, *[MIN_PRIORITY] * 4]) ** 0.9)
    assert held.state()["highest"] < 2
    held.update(np.array([0]), np.array([np.inf]))
    np.testing.assert_allclose(held.priorities()[0], 2**0.9)


def test_without_a_first_priority_the_highest_seen_is_taken() -> None:
    held = replay()
    held.insert(unrolls(0, 2), np.array([2.0, 5.0]))
    held.insert(unrolls(2, 1), None)
    np.testing.assert_allclose(held.priorities()[2], 5**0.9)


def test_the_first_without_a_priority_are_drawn_beside_those_that_have_one() -> None:
    """They weigh 1 (Schaul et al. 2016, algorithm 1), so that a few updates do not hide all that was never drawn."""
    held = replay(capacity_unrolls=2000)
    held.insert(unrolls(0, 1000), None)
    np.testing.assert_array_equal(held.priorities(), np.ones(1000))
    seen: set[int] = set()
    for _ in range(100):
        drawn = held.draw(64)
        seen |= set(drawn.numbers.tolist())
        held.update(drawn.numbers, np.full(64, 0.5))
    assert len(seen) > 950


def test_equal_priorities_weigh_1() -> None:
    held = replay()
    held.insert(unrolls(0, 2), np.ones(2))
    np.testing.assert_array_equal(held.draw(8).importance, np.ones(8))


def test_shares_and_importance_weights_are_those_of_seeds_own_test() -> None:
    """Priorities 0.3 and 0.9: with exponents 1 and 1 the weights are 1.2/0.3 and 1.2/0.9 over the higher of them."""
    for priority, importance in ((1.0, 1.0), (0.7, 0.3)):
        held = replay(priority_exponent=priority, importance_exponent=importance)
        held.insert(unrolls(0, 2), np.array([0.3, 0.9]))
        drawn = held.draw(10_000)
        powers = np.array([0.3, 0.9]) ** priority
        share = powers / powers.sum()
        assert abs(np.mean(drawn.numbers == 0) - share[0]) < 0.02
        weights = (0.5 / share) ** importance
        np.testing.assert_allclose(drawn.importance, (weights / weights.max())[drawn.numbers], rtol=1e-5)
        np.testing.assert_allclose(held.priorities_of(drawn), np.array([0.3, 0.9])[drawn.numbers], rtol=1e-6)


def test_importance_is_over_the_highest_of_each_optimiser_step_not_of_all_that_one_call_makes() -> None:
    held, alone = (replay(capacity_unrolls=64) for _ in range(2))
    for each in (held, alone):
        each.insert(unrolls(0, 50), np.linspace(0.01, 5, 50))
    together = held.draw(12, batches=3)
    for step in range(3):
        part = slice(4 * step, 4 * step + 4)
        single = alone.draw(4)
        np.testing.assert_array_equal(together.numbers[part], single.numbers)
        np.testing.assert_array_equal(together.importance[part], single.importance)


def test_with_an_exponent_of_0_all_priorities_are_alike() -> None:
    held = replay(priority_exponent=0)
    held.insert(unrolls(0, 2), np.array([0.3, 0.9]))
    drawn = held.draw(8)
    np.testing.assert_array_equal(drawn.importance, np.ones(8))
    np.testing.assert_array_equal(held.priorities_of(drawn), np.ones(8))


def test_even_drawing_knows_no_priorities() -> None:
    held = replay(sampling="uniform")
    held.insert(unrolls(0, 4), np.array([1e6, 1.0, 1.0, 1e-6]))
    drawn = held.draw(10_000)
    assert np.all(np.abs(np.bincount(drawn.numbers) - 2500) < 200) and np.all(drawn.importance == 1)


@pytest.mark.parametrize("sampling", ["prioritized", "uniform"])
def test_the_share_never_drawn_counts_those_that_went(sampling: str) -> None:
    held = replay(capacity_unrolls=4, sampling=sampling)
    held.insert(unrolls(0, 4), np.ones(4))
    held.draw(1)
    assert held.unseen_share == 0
    held.insert(unrolls(4, 4), np.ones(4))
    assert held.evicted == 4 and held.unseen_share == 0.75


@pytest.mark.parametrize("capacity", [1, 10, 100])
@pytest.mark.parametrize("sampling", ["prioritized", "uniform"])
def test_what_is_drawn_is_held_and_all_that_is_held_can_be_drawn(capacity: int, sampling: str) -> None:
    held = replay(capacity_unrolls=capacity, sampling=sampling)
    for number in range(3 * capacity):
        held.insert(unrolls(number, 1), None)
        drawn = set(held.draw(10 * capacity).numbers.tolist())
        assert drawn <= set(range(held.blocks.oldest, held.blocks.next))
    assert set(held.draw(20 * capacity).numbers.tolist()) == set(range(held.blocks.oldest, held.blocks.next))


def test_drawing_is_a_function_of_the_seed() -> None:
    one, other = replay(), replay()
    for held in (one, other):
        held.insert(unrolls(0, 9), np.arange(1.0, 10.0))
    np.testing.assert_array_equal(one.draw(64).numbers, other.draw(64).numbers)


def test_too_large_a_replay_is_refused_with_what_would_fit() -> None:
    frames = UnrollLayout((ArraySpec("uint8", (84, 84)),), ArraySpec("int32", ()), (), (), 80, 40)
    with pytest.raises(ConfigError, match=r"^replay: 100,000 unrolls of 120 steps of 84x84 = 79\.\d GiB: too large for "
                                          r"replay\.max_bytes, the largest that fits is 1,2\d\d$"):  # fmt: skip
        check_memory(100_000, frames, 2**30)
    assert check_memory(1000, frames, 2**30) == "replay: 1,000 unrolls of 120 steps of 84x84 = 816 MiB"


def test_three_quarters_of_the_machine_are_the_bound_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    small = UnrollLayout((ArraySpec("float32", ()), ArraySpec("uint8", (2, 3))), ArraySpec("int32", ()), (), (), 4, 0)
    monkeypatch.setattr("aioseed.experience.replay.memory.memory_bytes", lambda: 4000 * unroll_bytes(small))
    assert check_memory(3000, small, None) == "replay: 3,000 unrolls of 4 steps of 1 + 2x3 = 466 KiB"
    with pytest.raises(ConfigError, match=r"too large for this machine, the largest that fits is 3,000$") as caught:
        check_memory(3001, small, None)
    assert caught.value.path == "replay.capacity_unrolls"


def test_memory_for_saving_while_unrolls_go_counts_too() -> None:
    frames = UnrollLayout((ArraySpec("uint8", (84, 84)),), ArraySpec("int32", ()), (), (), 80, 40)
    assert check_memory(1000, frames, 2**30, SPARE_SHARE).endswith("= 893 MiB")
    with pytest.raises(ConfigError, match=r"too large for replay\.max_bytes, the largest that fits is 1,1\d\d$"):
        check_memory(1200, frames, 2**30, SPARE_SHARE)
    for is_saved, share in ((True, SPARE_SHARE), (False, 0)):
        blocks = Replay(frames, ReplayConfig(capacity_unrolls=3200), 0, is_saved=is_saved).blocks
        assert blocks.places == 3200 and blocks.spare_unrolls == 3200 * share


def test_a_minimum_beyond_the_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="min_unrolls"):
        ReplayConfig(capacity_unrolls=5, min_unrolls=6)


def test_more_inserted_together_than_are_held_is_refused() -> None:
    with pytest.raises(ValueError, match="insert_unrolls must not exceed capacity_unrolls, which is 5"):
        ReplayConfig(capacity_unrolls=5, min_unrolls=5, insert_unrolls=6)


@pytest.mark.parametrize("exponent", [10, 0])
def test_the_lowest_and_the_highest_priority_have_weights_at_every_exponent(exponent: float) -> None:
    held = replay(priority_exponent=exponent)
    held.insert(unrolls(0, 4), np.array([0, MAX_PRIORITY, 1, MAX_PRIORITY], np.float32))
    weights = held.priorities()
    assert (weights > 0).all() and np.isfinite(weights.sum())


def test_an_exponent_whose_weights_are_no_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="priority_exponent"):
        ReplayConfig(priority_exponent=10.1)


def test_as_many_are_inserted_together_as_one_update_is_owed_for() -> None:
    assert ReplayConfig().chunk_unrolls(64) == 42
    assert ReplayConfig(samples_per_insert=8).chunk_unrolls(4) == 1
    assert ReplayConfig(insert_unrolls=7).chunk_unrolls(64) == 7
