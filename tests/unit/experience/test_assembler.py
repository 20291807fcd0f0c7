from __future__ import annotations

import threading

import numpy as np
import pytest

from aioseed.errors import AioseedError
from aioseed.experience.assembler import UnrollAssembler
from aioseed.specs import ArraySpec
from aioseed.types import FINAL, FIRST, UnrollSink, UnrollSource


def test_it_serves_both_ports(feeder):
    assembler: UnrollAssembler = feeder(1).assembler
    sink: UnrollSink = assembler
    source: UnrollSource = assembler
    assert sink is source


# SEED RL's own vectors (tests/utils_test.py), but for the zero rows with which it begins: here the first unroll of an
# epoch waits for overlap + L + 1 rows of its own.
def test_an_unroll_ends_with_the_row_that_begins_the_next(feeder):
    road = feeder(3)
    for row, senders in enumerate([3, 3, 3, 2, 1, 1, 1]):
        road.feed([0, 1, 2][:senders], [10 + row, 20 + row, 30 + row][:senders])
    road.lease(2)
    for value in (33, 34, 35, 36):
        road.feed([2], [value])
    assert road.unrolls() == [[10, 11, 12, 13], [20, 21, 22, 23], [13, 14, 15, 16], [33, 34, 35, 36]]


def test_unrolls_of_slots_that_are_no_neighbours_come_out_in_the_order_of_their_rows(feeder):
    road = feeder(2, batch_unrolls=3)  # the second batch is filled in two goes
    for value in (0, 1, 2, 3, 4):
        road.feed([5, 0, 3, 7], [50 + value, value, 30 + value, 70 + value])
    first, second = [[50, 51, 52], [0, 1, 2], [30, 31, 32], [70, 71, 72]], [[52, 53, 54], [2, 3, 4]]
    assert road.unrolls() == [*first, *second]


def test_unrolls_share_the_overlap_and_one_row(feeder):
    road = feeder(2, 2)
    for value in (10, 11, 12, 13):
        road.feed([0], [value])
    assert road.unrolls() == []
    for value in (14, 15, 16):
        road.feed([0], [value])
    assert road.unrolls() == [[10, 11, 12, 13, 14], [12, 13, 14, 15, 16]]


def test_a_new_lease_shares_nothing_with_the_old_one(feeder):
    road = feeder(2, 2)
    for value in (20, 21):
        road.feed([1], [value])
    road.lease(1)
    for value in range(22, 29):
        road.feed([1], [value])
    road.lease(1)
    for value in range(40, 45):
        road.feed([1], [value])
    assert road.unrolls() == [[22, 23, 24, 25, 26], [24, 25, 26, 27, 28], [40, 41, 42, 43, 44]]


def test_rows_in_any_order_and_at_any_step_find_their_slots(feeder):
    road = feeder(2)
    road.feed([5, 3], [50, 30])
    road.feed([0, 3, 5], [0, 31, 51])
    road.feed([3, 0, 5], [32, 1, 52])
    road.feed([0], [2])
    assert road.unrolls() == [[30, 31, 32], [50, 51, 52], [0, 1, 2]]


@pytest.mark.parametrize("slots", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize(
    "breach",
    [
        {"sequence": 7},
        {"sequence": 0},
        {"epoch": 2},
        {"epoch": 0},
    ],
)
def test_a_row_that_does_not_follow_is_a_breach_and_nothing_is_applied(feeder, slots, breach):
    road = feeder(2)
    road.feed(slots, [10, 20, 30])
    steps = road.steps(slots, [11, 21, 31])
    for column, value in breach.items():
        getattr(steps, column)[1] = value
    with pytest.raises(AioseedError, match="row 1 "):
        road.send(steps, 3)
    assert road.ledger.snapshot().accepted == 0
    road.feed(slots, [12, 22, 32])
    road.feed(slots, [13, 23, 33])
    assert road.unrolls() == [[10, 12, 13], [20, 22, 23], [30, 32, 33]]


def test_the_first_row_of_an_epoch_must_be_first_of_an_episode(feeder):
    road = feeder(2)
    with pytest.raises(AioseedError, match="row 0 "):
        road.feed([3], [1], flags=[0])


def test_a_lease_cannot_go_on_with_the_epoch_of_an_earlier_one(feeder):
    road = feeder(2)
    road.feed([3], [1])
    road.lease(3)
    road.epoch[3] -= 1
    with pytest.raises(AioseedError, match="row 0 "):
        road.feed([3], [1])


@pytest.mark.parametrize("rows_before", [0, 1], ids=["first rows", "rows that follow"])
def test_a_slot_twice_in_one_batch_is_a_breach(feeder, rows_before):
    road = feeder(4)
    for _ in range(rows_before):
        road.feed([4, 2], [1, 2])
    with pytest.raises(AioseedError, match="row 0 "):
        road.feed([4, 2, 4], [1, 2, 3])


@pytest.mark.parametrize("slots", [[7, 8], [8, 0], [7, 9]])
def test_a_slot_beyond_the_table_is_a_breach(feeder, slots):
    road = feeder(2)
    road.sequence += [0, 0]
    road.epoch += [1, 1]
    with pytest.raises(AioseedError, match=f"slot {max(slots)} is beyond"):
        road.feed(slots, [1, 2])


def test_states_are_asked_for_once_and_only_for_rows_that_begin_an_unroll(feeder):
    road = feeder(2, state=(ArraySpec("float32", ()),))
    road.feed([6], [0])
    road.feed([4, 6, 5], [0, 1, 2])
    road.feed([4, 5], [0, 1])
    road.feed([6, 4, 5], [0, 1, 2])
    assert road.begin_calls == [[0], [0, 2], [0, 1, 2]]
    states = {}
    while (batch := road.assembler.take(0.0)) is not None:
        states[int(batch.identity.slot[0])] = batch.columns.initial_state[0].tolist()
        road.consume(batch)
    assert states == {6: [0.0], 4: [0.0], 5: [20.0]}


def test_no_state_is_asked_for_where_the_layout_has_none(feeder):
    road = feeder(1)
    road.feed([0], [1])
    road.feed([0], [2])
    assert road.begin_calls == []


def test_rows_behind_the_count_are_not_read(feeder):
    road = feeder(1)
    road.send(road.steps([0, 0], [1, 2]), 1)
    road.sequence[0] = 1
    road.feed([0], [5])
    assert road.unrolls() == [[1, 5]]


def test_a_batch_holds_unrolls_in_the_order_in_which_they_became_full(feeder):
    road = feeder(1, batch_unrolls=4)
    road.feed([1, 0, 2], [10, 0, 20])
    road.feed([2, 1, 0], [21, 11, 1])
    assert road.assembler.ready == 0
    road.feed([0, 1, 2], [2, 12, 22])
    assert road.assembler.batches_finished == 1
    batch = road.assembler.take(0.0)
    assert batch.identity.slot.tolist() == [2, 1, 0, 0]
    assert batch.identity.sequence.tolist() == [0, 0, 0, 1]
    assert batch.columns.observation[0].tolist() == [[20, 10, 0, 1], [21, 11, 1, 2]]
    assert batch.columns.policy_version.tolist() == [[5] * 4] * 2


def test_a_policy_version_beyond_32_bits_goes_on_from_the_lowest_number(feeder):
    road = feeder(1, batch_unrolls=1)
    for road.policy_version in (2**31 - 1, 2**31):
        road.feed([0], [0])
    assert road.assembler.take(0.0).columns.policy_version.ravel().tolist() == [2**31 - 1, -(2**31)]


def test_a_row_that_is_first_is_no_transition(feeder):
    road = feeder(3, 1)
    flags = [int(FIRST), 0, int(FINAL), int(FIRST), 0, int(FIRST), 0, 0]
    for value, flag in enumerate(flags):
        road.feed([0], [value], flags=[flag])
    first, second = road.assembler.take(0.0), road.assembler.take(0.0)
    assert first.identity.transitions.tolist() == [3]  # rows 1, 2, 4
    assert second.identity.transitions.tolist() == [2]  # rows 6, 7; rows 3 and 4 are the overlap
    assert road.ledger.snapshot().training == 5


def test_evaluation_rows_are_counted_and_enter_no_unroll(feeder):
    road = feeder(1)
    road.lease(1, evaluation=True)
    for row in range(3):
        road.feed([0, 1, 2], [row, 10 + row, 20 + row])
    assert road.unrolls() == [[0, 1], [20, 21], [1, 2], [21, 22]]
    assert road.ledger.snapshot()[:3] == (6, 4, 2)
    road.lease(1)
    for row in range(2):
        road.feed([1], [30 + row])
    assert road.unrolls() == [[30, 31]]


def test_states_of_training_rows_are_asked_for_by_their_place_in_the_whole_batch(feeder):
    road = feeder(1, state=(ArraySpec("float32", ()),))
    road.lease(1, evaluation=True)
    road.feed([1, 0, 2], [0, 1, 2])
    assert road.begin_calls == [[1, 2]]


def test_a_slot_is_not_leased_anew_while_its_unroll_is_open(feeder):
    road = feeder(3)
    road.feed([2], [0])
    with pytest.raises(AioseedError, match="open unroll"):
        road.assembler.begin(np.array([2]), evaluation=False)


def test_a_lease_that_ends_drops_its_open_transitions_once(feeder):
    road = feeder(4)
    for row in range(3):
        road.feed([0, 1], [row, row])
    road.assembler.drop(np.array([1, 1, 3]), "lease_ended")
    assert road.ledger.snapshot().dropped == {"lease_ended": 2}
    assert road.ledger.snapshot().open == 2
    road.assembler.drop(np.array([1]), "lease_ended")
    assert road.ledger.snapshot().dropped == {"lease_ended": 2}
    road.assembler.audit()


def test_what_arrives_only_to_be_dropped_is_accepted_and_dropped_with_its_unroll(feeder):
    road = feeder(4)
    for row in range(3):
        road.feed([0, 1], [row, row])
    road.assembler.drop(np.array([1]), "nonfinite", 1)
    books = road.ledger.snapshot()
    assert (books.dropped, books.accepted, books.open) == ({"nonfinite": 3}, 5, 2)
    road.assembler.audit()


def test_the_audit_finds_what_the_ledger_was_not_told(feeder):
    road = feeder(4)
    for row in range(3):
        road.feed([0], [row])
    road.assembler.audit()
    road.ledger.accept(1)
    with pytest.raises(AioseedError, match="account open"):
        road.assembler.audit()


def test_closing_names_what_was_left(feeder):
    road = feeder(2, batch_unrolls=2)
    for row in range(10):
        road.feed([0], [row])
    for row in range(4):
        road.feed([1], [row])
    road.assembler.close()
    road.assembler.close()
    books = road.ledger.snapshot()
    # Slot 0 filled four unrolls and slot 1 one: two batches wait and half a one. Each has one transition more.
    assert books.dropped == {"shutdown": 10, "partial_unroll": 2}
    assert (books.held, books.imbalance) == (0, 0)
    assert road.assembler.take(60.0) is None


def test_what_an_update_that_broke_off_would_have_trained_on_is_dropped_as_at_a_shutdown(feeder):
    road = feeder(2)
    for row in range(3):
        road.feed([0], [row])
    batch = road.assembler.take(0.0)
    assert road.assembler.settle(batch, None, None) == (0, 0)
    assert road.ledger.snapshot().dropped == {"shutdown": 2}


@pytest.mark.parametrize(
    ("finite", "trained", "skipped"), [([True, False], 5, 6), ([False, True], 6, 5), ([True, True], 11, 0)]
)
def test_only_what_a_skipped_update_would_have_trained_on_is_dropped(feeder, finite, trained, skipped):
    road = feeder(2, batch_unrolls=6)
    slots = list(range(6))
    road.feed(slots, slots)
    road.feed(slots, slots, [0, FIRST, 0, 0, 0, 0])
    road.feed(slots, slots)
    batch = road.assembler.take(0.0)
    assert road.assembler.settle(batch, np.array(finite), None) == (trained, skipped)
    books = road.ledger.snapshot()
    assert (books.consumed, books.dropped.get("nonfinite_update", 0)) == (trained, skipped)
    road.assembler.audit()


def test_after_stop_full_batches_can_be_taken_and_new_unrolls_are_dropped(feeder):
    road = feeder(1)
    road.feed([0], [0])
    road.feed([0], [1])
    road.assembler.stop()
    road.feed([0], [2])
    road.feed([0], [3])
    assert road.unrolls() == [[0, 1]]
    assert road.assembler.take(60.0) is None
    assert road.ledger.snapshot().dropped == {"shutdown": 2}
    road.assembler.audit()


def test_stopping_frees_inference_and_drops_only_what_found_no_place(feeder):
    held_up = threading.Event()

    def clock() -> float:
        held_up.set()
        return 0.0

    road = feeder(1, queue_batches=1, clock=clock)
    road.feed([0, 1, 2, 3], [0, 10, 20, 30])
    inference = threading.Thread(target=road.feed, args=([0, 1, 2, 3], [1, 11, 21, 31]), daemon=True)
    inference.start()
    assert held_up.wait(10)
    road.assembler.stop()
    inference.join(10)
    assert not inference.is_alive()
    assert road.unrolls() == [[0, 1], [10, 11], [20, 21]]
    assert road.ledger.snapshot().dropped == {"shutdown": 1}
    road.assembler.audit()


def test_a_full_queue_holds_inference_up_until_a_batch_is_given_back(feeder):
    held_up = threading.Event()
    times = iter((10.0, 13.5))

    def clock() -> float:
        held_up.set()
        return next(times)

    road = feeder(1, queue_batches=1, clock=clock)
    road.feed([0, 1, 2, 3], [0, 10, 20, 30])
    inference = threading.Thread(target=road.feed, args=([0, 1, 2, 3], [1, 11, 21, 31]), daemon=True)
    inference.start()
    assert held_up.wait(10)  # three buffers are full, the fourth unroll has no place
    batch = road.assembler.take(10.0)
    assert road.ledger.snapshot().imbalance == 0
    road.consume(batch)
    inference.join(10)
    assert not inference.is_alive()
    assert road.unrolls() == [[10, 11], [20, 21], [30, 31]]
    statistics = road.assembler.statistics()
    assert (statistics.blocked, statistics.blocked_s, statistics.free) == (1, 3.5, 3)
    road.assembler.audit()


def test_it_has_room_exactly_where_appending_neither_blocks_nor_completes_a_batch_with_priorities(feeder):
    slots = np.arange(4)

    def room(road) -> list[bool]:
        return [road.assembler.has_room(slots[:count]) for count in (1, 2, 3, 4)]

    road = feeder(1, batch_unrolls=2, queue_batches=1)  # three buffers, six unrolls
    assert room(road) == [True] * 4
    road.feed([0, 1, 2, 3], [0, 10, 20, 30])  # one more row of each makes them full
    assert room(road) == [True] * 4
    road.feed([0, 1, 2], [1, 11, 21])  # places left: 1, and one buffer
    assert room(road) == [True, True, True, False]
    road.feed([0, 1, 2], [2, 12, 22])
    assert room(road) == [False] * 4
    road.lease(0)  # begins an unroll, and so makes none full
    assert road.assembler.has_room(slots[:1])
    road.unrolls()
    assert room(road) == [True] * 4

    rated = feeder(1, batch_unrolls=2, priorities=lambda columns: np.ones(2, np.float32))
    rated.feed([0, 1, 2, 3], [0, 10, 20, 30])
    assert room(rated) == [True, False, False, False]
