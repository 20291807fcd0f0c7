"""Steps that are sent again: applied once, and answered as often as somebody has to know."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.errors import ProtocolError
from aioseed.serving.groups import MAX_GROUPS
from aioseed.serving.rule import Close

from .bench import Bench, taken


def test_a_repeat_is_answered_with_the_stored_action_and_applied_once() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    step = bench.step(slots, 0)
    bench.intake.take(peer, step, 0.0)
    bench.intake.poll(0.0)
    assert bench.serve() == 2
    assert bench.intake.take(peer, step, 0.0) is None
    assert bench.intake.waiting_rows == 0
    assert taken(peer) == [([0, 1], [0, 0], [0, 1])] * 2


@pytest.mark.parametrize("number", [0, 1])
def test_a_repeat_while_the_first_copy_is_under_way_is_answered_with_it(number: int) -> None:
    """Of the first step, at which each row is looked at, and of one of a group that is known."""
    bench = Bench()
    peer, slots = bench.join(1, 2)
    for earlier in range(number):
        bench.intake.take(peer, bench.step(slots, earlier), 0.0)
        bench.intake.poll(0.0)
        bench.serve()
    answers = len(taken(peer))
    step = bench.step(slots, number)
    bench.intake.take(peer, step, 0.0)
    assert bench.intake.take(peer, step, 0.0) is None
    assert bench.intake.waiting_rows == 2
    bench.intake.poll(0.0)
    assert bench.intake.take(peer, step, 0.0) is None
    bench.serve()
    found = taken(peer)[answers:]
    assert found[0][:2] == ([0, 1], [number, number])
    assert found == found[:1] * 2, "the step, and once whoever asked again"
    assert not bench.intake._careful  # else it would keep sessions that are over


def test_a_repeat_is_answered_for_the_rows_that_have_not_gone_on_meanwhile() -> None:
    """Two rows were sent each by itself, then together again, and the first goes on before the other is served."""
    bench = Bench()
    peer, slots = bench.join(1, 2)
    for slot in slots:
        bench.intake.take(peer, bench.step(slots[slot : slot + 1], 0), 0.0)
        bench.intake.close(Close.ENOUGH, 0.0)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.serve()
    bench.intake.take(peer, bench.step(slots[:1], 1), 0.0)
    bench.intake.close(Close.ENOUGH, 0.0)
    bench.serve()
    assert taken(peer) == [([0], [0], [0]), ([1], [0], [1]), ([1], [0], [1])]
    bench.serve()
    assert taken(peer)[3:] == [([0], [1], [1])], "and not as that of the step before, too"


def test_a_repeat_of_a_lease_that_ends_meanwhile_is_not_answered() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 1)
    for _ in range(2):
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.forget(peer, slots.astype(np.int64), 0.0)
    bench.serve()
    assert len(peer.answers) == 1


def test_a_step_that_is_repeated_without_end_is_answered_once_and_counted() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 1)
    for _ in range(1000):
        assert bench.intake.take(peer, bench.step(slots, 0), 0.0) is None
    assert (len(peer.careful), peer.counted) == (1, 999)
    bench.intake.poll(2.0)
    bench.serve()
    assert taken(peer) == [([0], [0], [0])] * 2, "the step and its repeats"


def test_more_different_repeats_than_an_actor_has_groups_are_a_protocol_error() -> None:
    bench = Bench(capacity=1024, max_rows=1024)
    peer, slots = bench.join(1, MAX_GROUPS + 1)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    for slot in slots[:-1]:
        bench.intake.take(peer, bench.step(slots[slot : slot + 1], 0), 0.0)
    with pytest.raises(ProtocolError, match="repeats"):
        bench.intake.take(peer, bench.step(slots[-1:], 0), 0.0)


def test_both_legal_kinds_may_stand_in_one_step() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.serve()
    bench.intake.take(peer, bench.step(slots[:1], 1), 0.0)
    bench.intake.close(Close.ENOUGH, 0.0)
    bench.serve()
    other, theirs = bench.join(2, 1)
    bench.intake.take(other, bench.step(theirs, 0), 0.2)
    due_s = bench.intake.due_at_s()
    assert bench.intake.take(peer, bench.step(slots, [1, 1]), 0.5) is None
    assert bench.intake.waiting_rows == 2 and bench.intake.due_at_s() == due_s
    bench.intake.close(Close.ENOUGH, 0.5)
    bench.serve()
    assert taken(peer)[-1] == ([0, 1], [1, 1], [1, 2])


def test_in_lockstep_the_new_row_of_such_a_step_stays_where_another_lease_ends() -> None:
    bench = Bench(lockstep_rows=4)
    (one, ours), (two, theirs) = bench.join(1, 2), bench.join(2, 2)
    bench.intake.take(one, bench.step(ours, 0), 0.0)
    bench.intake.take(two, bench.step(theirs[1:], 0), 0.0)
    bench.intake.take(two, bench.step(theirs, 0), 0.0)
    bench.intake.forget(one, ours.astype(np.int64), 0.0)
    assert bench.intake.waiting_rows == 2
