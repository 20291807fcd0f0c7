"""The replay source: rows come in at one end, drawn unrolls go out at the other, and the books balance at all times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from aioseed.errors import AioseedError
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.limiter import SamplesPerInsert
from aioseed.experience.replay.replay import MIN_PRIORITY, Replay
from aioseed.experience.replay.source import ReplaySource
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Account
from aioseed.types import FIRST


class Line(NamedTuple):
    feeder: Any
    source: ReplaySource
    metrics: Metrics

    def steps(self, first: int, count: int) -> None:
        for value in range(first, first + count):
            self.feeder.feed([0, 1], [value, 1000 + value])

    @property
    def held(self) -> int:
        return self.feeder.ledger.snapshot().replay


@pytest.fixture
def line(feeder):
    def make(
        *, capacity: int = 6, minimum: int = 2, ratio: float | None = 2.0, sample: int = 4, **options: Any
    ) -> Line:
        road = feeder(3, batch_unrolls=2)
        config = ReplayConfig(capacity_unrolls=capacity, min_unrolls=minimum)
        layout = road.layout
        limiter = SamplesPerInsert(ratio, min_unrolls=minimum, insert_unrolls=2, sample_unrolls=sample)
        metrics = Metrics()
        source = ReplaySource(
            layout, road.assembler, Replay(layout, config, 0), limiter, road.ledger, metrics, sample_unrolls=sample,
            **options,
        )  # fmt: skip
        return Line(road, source, metrics)

    return make


def test_nothing_is_drawn_before_there_is_enough_and_then_as_often_as_the_ratio_says(line) -> None:
    made = line(minimum=4)
    made.steps(0, 4)
    assert made.source.take(0.0) is None
    made.steps(4, 3)
    drawn = 0
    for _ in range(10):
        batch = made.source.take(0.0)
        if batch is not None:
            drawn += batch.count
            made.source.give_back(batch)
    assert drawn == 4 and made.source.limiter.inserted == 4


@pytest.mark.parametrize(("samples_first", "held"), [(True, 2), (False, 6)])
def test_it_samples_before_it_takes_in_what_waits_where_the_order_must_not_depend_on_when_that_came(
    line, samples_first: bool, held: int
) -> None:
    made = line(ratio=None, samples_first=samples_first)
    made.steps(0, 10)
    for _ in range(2):
        batch = made.source.take(0.0)
        made.source.give_back(batch)
    assert len(made.source.replay) == held


def test_it_waits_no_longer_than_it_was_told_however_many_unrolls_come_meanwhile(line, monkeypatch) -> None:
    seconds = iter(range(9))
    made = line(minimum=6, samples_first=True, clock=lambda: float(next(seconds)))
    made.steps(0, 7)
    waits: list[float] = []
    take = made.feeder.assembler.take
    monkeypatch.setattr(made.feeder.assembler, "take", lambda timeout_s: waits.append(timeout_s) or take(0.0))
    assert made.source.take(2.0) is None
    assert waits == [1.0, 0.0, 0.0]


def test_what_was_saved_before_it_was_trained_on_counts_as_trained_after_the_restart(line) -> None:
    made, other = line(), line()
    made.steps(0, 4)
    batch = made.source.take(0.0)
    saved = made.source.save()
    arrays = {}
    for segment in saved.segments:
        with segment.read() as there:
            arrays[segment.name] = dict(there)
    other.source.restore(saved.state, saved.arrays, arrays.__getitem__)
    assert other.source.settle(batch, np.array([True]), None) == (6, 0)


def test_drawn_unrolls_are_those_that_came(line) -> None:
    made = line()
    made.steps(0, 4)
    batch = made.source.take(0.0)
    assert {tuple(column) for column in batch.columns.observation[0].T} <= {(0, 1, 2, 3), (1000, 1001, 1002, 1003)}
    assert batch.entries is not None and batch.columns.importance.max() == 1


def test_the_books_balance_and_what_is_forgotten_is_consumed(line) -> None:
    made = line(capacity=6)
    made.steps(0, 1)
    for begin in range(1, 40, 3):
        made.steps(begin, 3)
        while (batch := made.source.take(0.0)) is not None:
            made.source.settle(batch, np.array([True]), np.ones(4))
            made.source.give_back(batch)
        state = made.feeder.ledger.snapshot()
        assert state.imbalance == 0 and state.queued + state.training == 0
        made.source.audit()
    assert made.held == 6 * 3 and state.consumed == 26 * 3 - made.held


def test_the_audit_finds_what_the_ledger_was_not_told(line) -> None:
    made = line()
    made.steps(0, 4)
    made.source.give_back(made.source.take(0.0))
    made.source.audit()
    made.feeder.ledger.consume(1, Account.REPLAY)
    with pytest.raises(AioseedError, match="account replay"):
        made.source.audit()


def test_what_was_inserted_counts_as_trained_once(line) -> None:
    made = line()
    made.steps(0, 4)
    batch = made.source.take(0.0)
    assert made.source.settle(batch, np.array([True]), None) == (6, 0)
    assert made.source.settle(batch, np.array([True]), None) == (0, 0)


@pytest.mark.parametrize(
    ("entries", "finite", "weights"),
    [
        ([0, 0, 1, 1], [True, False], [4**0.9, MIN_PRIORITY**0.9]),
        ([0, 0, 1, 1], [False, True], [MIN_PRIORITY**0.9, 9**0.9]),
        ([0, 1, 1, 1], [True, False], [4**0.9, 4**0.9]),  # a step with unroll 1 in it was finite
    ],
)
def test_new_priorities_go_to_what_was_learned_from_and_the_lowest_to_a_skipped_step(
    line, entries: list[int], finite: list[bool], weights: list[float]
) -> None:
    made = line()
    made.steps(0, 4)
    batch = made.source.take(0.0)
    batch = type(batch)(batch.columns, batch.identity, 4, None, np.array(entries))
    made.source.settle(batch, np.array(finite), np.array([4.0, 4.0, 9.0, 9.0]))
    np.testing.assert_allclose(made.source.replay.priorities(), weights)
    assert made.source.settle(batch, None, None) == (0, 0)
    np.testing.assert_allclose(made.source.replay.priorities(), weights, err_msg="one that broke off says nothing")


@pytest.mark.parametrize("priorities", [None, np.full(4, np.nan)])
def test_an_unroll_that_no_step_survives_is_not_drawn_again_and_again(line, priorities: np.ndarray | None) -> None:
    """One extreme reward has nearly all of the weight, and every step with it would be skipped."""
    made = line(ratio=None)
    made.steps(0, 7)
    made.source.give_back(made.source.take(0.0))
    made.source.replay.update(np.array([2]), np.array([1e20]))
    skipped = 0
    for _ in range(20):
        batch = made.source.take(0.0)
        bad = bool(np.any(batch.entries == 2))
        skipped += bad
        made.source.settle(batch, np.array([not bad]), priorities)
        made.source.give_back(batch)
    assert skipped == 1


def test_training_that_is_behind_leaves_the_queue_full(line) -> None:
    """The pushing side is held up: nothing is taken out of the queue while too much is owed."""
    made = line(ratio=4.0)
    made.steps(0, 1)
    for begin in range(1, 13, 3):
        made.steps(begin, 3)
    assert made.feeder.assembler.ready == 4
    batch = made.source.take(0.0)
    assert made.feeder.assembler.ready == 3, "8 samples are owed for the next two unrolls already"
    made.source.give_back(batch)


def test_in_lockstep_all_that_is_owed_is_drawn_before_more_is_inserted(line) -> None:
    made = line(ratio=4.0, samples_first=True)
    made.steps(0, 1)
    for begin in range(1, 13, 3):
        made.steps(begin, 3)
    inserted = []
    while (batch := made.source.take(0.0)) is not None:
        inserted.append(made.source.limiter.inserted)
        made.source.give_back(batch)
    assert inserted == sorted(inserted) and inserted[0] == 2 and inserted[-1] == 8
    assert all(inserted.count(n) == 2 for n in (4, 6)), inserted


def test_what_was_likelier_drawn_weighs_less(line) -> None:
    made = line(ratio=None, sample=64)
    made.steps(0, 4)
    made.source.give_back(made.source.take(0.0))
    made.source.replay.update(np.array([0, 1]), np.array([1.0, 3.0]))
    batch = made.source.take(0.0)
    assert set(batch.entries.tolist()) == {0, 1}
    assert (batch.columns.importance == 1).tolist() == (batch.entries == 0).tolist()


def test_it_is_ready_where_unrolls_wait_or_can_be_drawn(line) -> None:
    made = line()
    ready = [made.source.ready]
    made.steps(0, 4)
    ready.append(made.source.ready)
    made.source.give_back(made.source.take(0.0))
    ready.append(made.source.ready)
    assert ready == [0, 1, 0]
    free = line(ratio=None)
    free.steps(0, 4)
    free.source.give_back(free.source.take(0.0))
    assert free.feeder.assembler.ready == 0 and free.source.ready == 1


def test_a_batch_is_lent_once(line) -> None:
    made = line(ratio=None)
    made.steps(0, 4)
    batch = made.source.take(0.0)
    with pytest.raises(AioseedError, match="lent"):
        made.source.take(0.0)
    with pytest.raises(AioseedError, match="not lent"):
        made.source.give_back(replace(batch, columns=batch.columns._replace()))
    made.source.give_back(batch)
    with pytest.raises(AioseedError, match="not lent"):
        made.source.give_back(batch)


def test_it_says_what_is_worth_watching(line) -> None:
    made = line(ratio=None, capacity=4)
    made.steps(0, 16)
    made.source.give_back(made.source.take(0.0))
    values = made.metrics.snapshot()
    assert values["replay/size_unrolls"] == 4 and values["replay/sampled_age_unrolls/count"] == 4
    assert 0.9 <= values["replay/sampled_age_unrolls/p99"] <= 4.4, "of ten that were inserted the newest four are held"
    assert values["replay/samples_per_insert"] == 4 / (10 - 2) and values["replay/never_sampled_share"] == 1
    assert values["replay/sampled_priority/p99"] == pytest.approx(1, rel=0.1)


def test_first_priorities_come_from_the_function_of_the_agent(feeder) -> None:
    road = feeder(3, batch_unrolls=2, priorities=lambda columns: columns.observation[0][0].astype(np.float32) + 1)
    for value in range(4):
        road.feed([0, 1], [value, 1000 + value], [FIRST, FIRST] if not value else [0, 0])
    np.testing.assert_array_equal(road.assembler.take(0.0).priorities, [1, 1001])


def test_a_restored_source_goes_on_as_the_saved_one(line) -> None:
    """Counts, priorities, the random generator and what waits to be counted as trained on."""
    one, other = line(), line()
    one.steps(0, 4)
    saved_early = one.source.take(0.0)
    one.source.settle(saved_early, np.array([True]), np.array([1.0, 2.0, 3.0, 4.0]))
    one.source.give_back(saved_early)
    saved = one.source.save()
    disk = {}
    for segment in saved.segments:
        with segment.read() as arrays:
            disk[segment.name] = {name: array.copy() for name, array in arrays.items()}
    saved.release(True)
    other.source.restore(saved.state, saved.arrays, disk.__getitem__)
    assert other.source.limiter.inserted == one.source.limiter.inserted
    first, second = one.source.replay.draw(32), other.source.replay.draw(32)
    np.testing.assert_array_equal(first.numbers, second.numbers)
    np.testing.assert_array_equal(first.importance, second.importance)
