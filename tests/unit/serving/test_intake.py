"""From STEPs to closed batches and back to ACTIONs, without I/O: an honest actor, repeats, subsets, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.errors import ProtocolError
from aioseed.serving.rule import Close
from aioseed.wire.messages import MAX_ERROR_ROWS

from .bench import Bench, Peer, taken


def four_and_two_wait() -> tuple[Bench, tuple[Peer, np.ndarray], tuple[Peer, np.ndarray]]:
    bench = Bench(deadline_s=9.0)
    peers = bench.join(1, 4), bench.join(2, 2)
    for peer, slots in peers:
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
    return bench, *peers


def test_an_honest_actor_gets_each_action_by_slot_and_sequence() -> None:
    bench = Bench()
    one, ours = bench.join(1, 2)
    two, theirs = bench.join(2, 3)
    for sequence in range(5):
        assert bench.intake.take(two, bench.step(theirs, sequence), 0.0) is None
        assert bench.intake.poll(0.0) is Close.NO or sequence > 0
        assert bench.intake.take(one, bench.step(ours, sequence), 0.0) is None
        bench.intake.poll(0.0)
        while bench.batches:
            bench.serve()
    assert taken(one) == [([0, 1], [s, s], [s, s + 1]) for s in range(5)]
    assert taken(two) == [([2, 3, 4], [s] * 3, [s + 2, s + 3, s + 4]) for s in range(5)]


def test_the_columns_of_a_batch_hold_the_rows_where_the_segments_say() -> None:
    bench = Bench()
    one, ours = bench.join(1, 2)
    two, theirs = bench.join(2, 2)
    bench.intake.take(one, bench.step(ours, 0, 1.0), 0.0)
    bench.intake.take(two, bench.step(theirs, 0, 2.0), 0.0)
    assert bench.intake.poll(0.0) is Close.ALL
    (batch,) = bench.batches
    columns = batch.rows.columns
    assert columns.slot[: batch.count].tolist() == [0, 1, 2, 3]
    assert batch.rows.resident_rows == 4
    assert columns.observation[0][: batch.count, 0].tolist() == [1.0, 1.0, 2.0, 2.0]


def test_an_idle_device_waits_as_long_as_a_batch_takes() -> None:
    """From when somebody waits and the device is idle, whichever comes later."""
    bench, (one, ours), (two, theirs) = four_and_two_wait()
    assert bench.intake.due_at_s() == pytest.approx(9.0)  # nobody knows yet how long serving takes
    bench.intake.poll(0.0)
    bench.serve(0.3)
    bench.intake.take(two, bench.step(theirs, 1), 0.5)
    assert bench.intake.due_at_s() == pytest.approx(0.8)
    assert bench.intake.poll(0.79) is Close.NO
    assert bench.intake.poll(bench.intake.due_at_s() or 0.0) is Close.PATIENCE
    bench.intake.take(one, bench.step(ours[:1], 1), 0.9)
    assert bench.intake.due_at_s() == pytest.approx(9.9)  # with a batch in flight
    bench.serve(1.1)
    assert bench.intake.due_at_s() == pytest.approx(1.4)
    assert bench.intake.poll(1.39) is Close.NO
    assert bench.intake.poll(bench.intake.due_at_s() or 0.0) is Close.PATIENCE


def test_how_long_a_batch_takes_is_a_mean_that_one_slow_batch_hardly_moves() -> None:
    bench = Bench(deadline_s=9.0)
    peer, slots = bench.join(1, 2)
    bench.intake.take(peer, bench.step(slots[:1], 0), 0.0)
    bench.intake.served(0.5)
    assert bench.intake.due_at_s() == pytest.approx(0.5)
    bench.intake.served(4.5)
    assert 0.5 < (bench.intake.due_at_s() or 0.0) < 1.0
    for _ in range(100):
        bench.intake.served(4.5)
    assert bench.intake.due_at_s() == pytest.approx(4.5, rel=0.01)


def test_columns_are_known_to_take_the_memory_of_the_largest_batch_that_was_in_them() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 4)
    largest: dict[int, int] = {}
    for sequence, count in enumerate([4, 2, 1]):
        bench.intake.take(peer, bench.step(slots[:count], sequence), 0.0)
        bench.intake.close(Close.FULL, 0.0)
        rows = bench.batches[0].rows
        largest[id(rows)] = max(largest.get(id(rows), 0), count)
        assert rows.resident_rows == largest[id(rows)]
        bench.serve()
    assert len(largest) < 3, "columns are used again"


def test_nothing_is_due_while_as_many_batches_as_may_be_are_in_flight() -> None:
    bench = Bench(max_in_flight=1)
    one, ours = bench.join(1, 2)
    two, theirs = bench.join(2, 2)
    bench.intake.take(one, bench.step(ours, 0), 0.0)
    assert bench.intake.poll(1.0) is Close.DEADLINE
    bench.intake.take(two, bench.step(theirs, 0), 1.0)
    assert bench.intake.due_at_s() is None
    bench.serve(3.0)
    assert bench.intake.due_at_s() is not None


@given(st.floats(0.0, 1e5), st.floats(1e-3, 10.0))
def test_a_batch_closes_when_it_is_due_and_no_sooner(opened_s: float, deadline_s: float) -> None:
    bench = Bench(deadline_s=deadline_s)
    peer, slots = bench.join(1, 1)
    bench.join(2, 1)
    bench.intake.take(peer, bench.step(slots, 0), opened_s)
    assert bench.intake.poll(opened_s + 0.9 * deadline_s) is Close.NO
    assert bench.intake.poll(bench.intake.due_at_s() or 0.0) is Close.DEADLINE


def test_who_missed_a_deadline_is_not_expected_until_it_sends() -> None:
    bench = Bench()
    one, ours = bench.join(1, 2)
    two, theirs = bench.join(2, 2)
    bench.intake.take(one, bench.step(ours, 0), 0.0)
    assert bench.intake.poll(0.5) is Close.NO
    assert bench.intake.poll(1.0) is Close.DEADLINE
    bench.serve(1.0)
    bench.intake.take(one, bench.step(ours, 1), 2.0)
    assert bench.intake.poll(2.0) is Close.ALL
    bench.serve(2.0)
    bench.intake.take(two, bench.step(theirs, 0), 3.0)
    bench.intake.close(Close.ENOUGH, 3.0)
    assert bench.table.late_count == 0


def test_half_of_those_that_answered_lately_is_enough_and_makes_nobody_late() -> None:
    bench, (one, ours), (two, theirs) = four_and_two_wait()
    for sequence in range(1, 3):
        bench.intake.poll(0.0)
        bench.serve(1.0)
        bench.intake.take(one, bench.step(ours, sequence), 1.0)
        assert bench.intake.poll(1.0, arriving=True) is Close.NO
        bench.intake.take(two, bench.step(theirs, sequence), 1.0)
    bench.intake.poll(1.0)
    bench.serve(1.0)
    bench.intake.take(one, bench.step(ours[:2], 3), 1.0)  # of six that answered each of the last two closes
    assert bench.intake.poll(1.0) is Close.NO
    bench.intake.take(one, bench.step(ours[2:3], 3), 1.0)
    assert bench.intake.poll(1.0) is Close.ENOUGH
    assert bench.table.late_count == 0


def test_a_batch_that_is_due_sooner_than_a_timer_goes_off_closes_with_the_next_message() -> None:
    bench, _, (two, theirs) = four_and_two_wait()
    bench.intake.poll(0.0)
    bench.serve(0.0002)
    bench.intake.take(two, bench.step(theirs[:1], 1), 1.0)
    assert bench.intake.due_at_s() == pytest.approx(1.001)
    assert bench.intake.poll(1.0003) is Close.NO
    bench.intake.take(two, bench.step(theirs[1:], 1), 1.0005)
    assert bench.intake.poll(1.0005) is Close.PATIENCE


def test_one_refused_row_refuses_the_message_and_nothing_is_applied() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    error = bench.intake.take(peer, bench.step(slots, [0, 3]), 0.0)
    assert error is not None
    assert [(row.slot, row.sequence, row.code) for row in error.rows] == [(1, 3, "sequence_gap")]
    assert bench.intake.waiting_rows == 0
    assert bench.intake.take(peer, bench.step(slots, 0), 0.0) is None


def test_an_error_names_as_many_rows_as_fit_and_one_code_only_where_it_is_that_of_all() -> None:
    bench = Bench(capacity=2048, max_rows=2048)
    peer, slots = bench.join(1, MAX_ERROR_ROWS + 1)
    error = bench.intake.take(peer, bench.step(slots, 3), 0.0)
    assert error is not None
    assert (error.code, len(error.rows)) == ("sequence_gap", MAX_ERROR_ROWS)
    assert error.encode()
    error = bench.intake.take(peer, bench.step(np.array([0, 2000]), 3), 0.0)
    assert error is not None
    assert error.code == "malformed"


def test_a_batch_without_room_is_closed_first() -> None:
    bench = Bench(max_rows=4)
    one, ours = bench.join(1, 3)
    two, theirs = bench.join(2, 3)
    bench.intake.take(one, bench.step(ours, 0), 0.0)
    bench.intake.take(two, bench.step(theirs, 0), 0.0)
    assert [batch.cause for batch in bench.batches] == [Close.FULL]
    assert bench.intake.waiting_rows == 3


def test_a_lease_that_ends_lets_its_waiting_rows_go_first() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    bench.join(2, 2)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.forget(peer, slots.astype(np.int64), 0.0)
    assert len(bench.batches) == 1
    assert not peer.groups
    error = bench.intake.take(peer, bench.step(slots, 1), 0.0)
    assert error is not None
    assert {row.code for row in error.rows} == {"not_leased"}


def test_a_lease_that_ends_without_waiting_rows_closes_no_batch() -> None:
    bench = Bench()
    (one, ours), (two, theirs), (three, last) = bench.join(1, 2), bench.join(2, 2), bench.join(3, 2)
    bench.intake.forget(one, ours.astype(np.int64), 0.0)
    bench.intake.take(two, bench.step(theirs, 0), 0.0)
    bench.intake.forget(three, last.astype(np.int64), 0.0)
    assert not bench.batches and bench.intake.waiting_rows == 2


def test_more_rows_than_a_batch_holds_are_a_protocol_error() -> None:
    bench = Bench(max_rows=2)
    peer, slots = bench.join(1, 3)
    with pytest.raises(ProtocolError) as caught:
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
    assert caught.value.code == "row_count"


def test_lockstep_rows_lie_in_the_order_of_slots_whatever_the_order_of_arrival() -> None:
    bench = Bench(lockstep_rows=4)
    one, ours = bench.join(1, 2)
    two, theirs = bench.join(2, 2)
    for sequence in range(3):
        bench.intake.take(two, bench.step(theirs, sequence), 5.0)
        assert bench.intake.poll(9.0) is Close.NO
        assert bench.intake.due_at_s() is None, "no time closes it"
        bench.intake.take(one, bench.step(ours, sequence), 0.0)
        assert bench.intake.poll(9.0) is Close.ALL
        assert bench.batches[0].rows.columns.slot[:4].tolist() == [0, 1, 2, 3]
        assert bench.batches[0].opened_s == 5.0
        bench.serve()
    assert taken(one)[-1] == ([0, 1], [2, 2], [2, 3])
    assert taken(two)[-1] == ([2, 3], [2, 2], [4, 5])


@pytest.mark.parametrize("gone", [0, 1])
def test_in_lockstep_a_lease_that_ends_takes_its_waiting_rows_along(gone: int) -> None:
    bench = Bench(lockstep_rows=4)
    peers = bench.join(1, 2), bench.join(2, 2)
    for peer, slots in reversed(peers):
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
    peer, slots = peers[gone]
    bench.intake.forget(peer, slots.astype(np.int64), 0.0)
    assert bench.intake.waiting_rows == 2
    assert not bench.batches
    assert bench.intake.poll(0.0) is Close.NO


def test_an_answer_finds_its_rows_when_the_columns_of_its_batch_are_in_use_again() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    other, theirs = bench.join(2, 1)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.close(Close.ENOUGH, 0.0)
    bench.batches[0].rows.columns.epoch[:] = 0
    bench.intake.forget(other, theirs.astype(np.int64), 0.0)
    bench.serve()
    assert not bench.table.in_batch.any()


def test_in_lockstep_rows_that_take_the_place_of_forgotten_ones_are_known_to_the_table() -> None:
    bench = Bench(lockstep_rows=4)
    one, ours = bench.join(1, 2)
    two, theirs = bench.join(2, 2)
    bench.intake.take(one, bench.step(ours, 0), 0.0)
    bench.intake.take(two, bench.step(theirs, 0), 0.0)
    bench.intake.forget(two, theirs.astype(np.int64), 0.0)
    three, again = bench.join(3, 2)
    bench.intake.take(three, bench.step(again, 0), 0.0)
    assert bench.intake.poll(0.0) is Close.ALL
    assert bench.table.in_batch[:4].all()


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 3), min_size=1)), max_size=40), st.randoms())
def test_every_step_is_applied_once_in_order_whatever_subsets_are_sent(
    script: list[tuple[int, set[int]]], random: object
) -> None:
    """Random sends of subsets, repeats and serving: each slot's applied sequence numbers are 0, 1, 2, ... exactly."""
    bench = Bench(max_rows=4)
    peer, slots = bench.join(1, 4)
    applied: dict[int, list[int]] = {slot: [] for slot in range(4)}
    answered = dict.fromkeys(range(4), -1)
    sent = dict.fromkeys(range(4), -1)
    for kind, members in script:
        which = np.array(sorted(members))
        if kind == 0:  # the next step of those that were answered
            which = np.array([slot for slot in which if sent[slot] == answered[slot]], int)
            if which.size:
                assert bench.intake.take(peer, bench.step(slots[which], [answered[s] + 1 for s in which]), 0.0) is None
                sent.update({int(slot): answered[slot] + 1 for slot in which})
        elif kind == 1:  # the last step again
            which = np.array([slot for slot in which if sent[slot] >= 0], int)
            if which.size:
                assert bench.intake.take(peer, bench.step(slots[which], [sent[s] for s in which]), 0.0) is None
        elif kind == 2 and bench.intake.waiting_rows:
            bench.intake.close(Close.ENOUGH, 0.0)
        elif kind == 3 and bench.batches:
            columns, count = bench.batches[0].rows.columns, bench.batches[0].count
            for slot, sequence in zip(columns.slot[:count].tolist(), columns.sequence[:count].tolist(), strict=True):
                applied[slot].append(sequence)
                answered[slot] = sequence
            bench.serve()
    for slot, sequences in applied.items():
        assert sequences == list(range(len(sequences))), slot
    for answer in taken(peer):
        assert [slot + sequence for slot, sequence in zip(*answer[:2], strict=True)] == answer[2]
