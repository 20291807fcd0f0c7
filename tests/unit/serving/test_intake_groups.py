"""Groups of an actor at the intake: which STEPs are taken by one comparison, and when a row is looked at again."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.errors import ProtocolError
from aioseed.serving.groups import MAX_GROUPS
from aioseed.serving.rule import Close
from aioseed.serving.slots import SlotTable

from .bench import STEPS, Bench, taken


def test_who_plays_with_subsets_does_not_fill_our_memory() -> None:
    bench = Bench(capacity=1024, max_rows=1024)
    peer, slots = bench.join(1, MAX_GROUPS + 1)
    for slot in slots:
        assert bench.intake.take(peer, bench.step(slots[slot : slot + 1], 0), 0.0) is None
    assert len(peer.groups) <= MAX_GROUPS


def test_subsets_and_whole_groups_may_alternate() -> None:
    """A remembered group must never accept a step whose slots went on by other messages meanwhile."""
    bench = Bench()
    peer, slots = bench.join(1, 3)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.serve()
    assert bench.intake.take(peer, bench.step(slots[1:2], 1), 0.0) is None
    error = bench.intake.take(peer, bench.step(slots, 1), 0.0)
    assert error is None  # rows 0 and 2 are new, row 1 repeats while under way
    assert bench.intake.waiting_rows == 3
    bench.intake.close(Close.ENOUGH, 0.0)
    assert bench.serve() == 3


def test_a_group_is_not_taken_for_granted_after_a_step_of_new_and_repeated_rows() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 3)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.serve()
    assert bench.intake.take(peer, bench.step(slots[:2], [0, 1]), 0.0) is None
    assert bench.intake.take(peer, bench.step(slots, 1), 0.0) is None
    assert bench.intake.waiting_rows == 3


@pytest.mark.parametrize("as_long_as", [1, 3])
def test_a_step_with_the_head_that_is_expected_and_another_length_is_a_protocol_error(as_long_as: int) -> None:
    bench = Bench(max_rows=16)
    others = bench.join(1, 1), bench.join(3, 3)
    for peer, slots in others:  # messages of 1 and of 3 rows were seen before
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.forget(*others[0], 0.0)
    bench.intake.forget(*others[1], 0.0)
    bench.table.lease(4, 1, 0.0)
    peer, slots = bench.join(2, 2)
    bench.table.epoch[slots] = np.uint64(2**32 + int(slots[0]))
    assert slots.tolist() == [1, 2]
    for sequence in range(2):
        if sequence:  # where 1 or 3 rows have the slot of the first, this step has the same number
            sound = bench.step(slots, sequence)
            forged = (sound + bytes(99))[: STEPS.size_bytes(as_long_as)]
            at = 8 + 8 * as_long_as
            assert forged[at : at + 4] == sound[24:28]
            with pytest.raises(ProtocolError) as caught:
                bench.intake.take(peer, forged, 0.0)
            assert caught.value.code == "size_mismatch"
        bench.batches.clear()
        assert bench.intake.take(peer, bench.step(slots, sequence), 0.0) is None
        bench.intake.close(Close.ALL, 0.0)
        bench.serve()
    assert len(peer.answers) == 2


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_only_the_first_step_of_a_group_is_looked_at_row_by_row(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    sort = SlotTable.sort
    monkeypatch.setattr(SlotTable, "sort", lambda *args: looks.append(1) or sort(*args))
    bench = Bench()
    peer, slots = bench.join(1, rows)
    for sequence in range(4):
        assert bench.intake.take(peer, bench.step(slots, sequence), 0.0) is None
        bench.intake.poll(0.0)
        assert bench.serve() == rows
    assert len(looks) == 1
    assert taken(peer)[-1][1] == [3] * rows


@pytest.mark.parametrize("ended", [[0, 1], [1]])
def test_a_group_that_lost_a_lease_while_it_was_served_is_not_taken_for_granted_again(ended: list[int]) -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.intake.forget(peer, np.array(ended), 0.0)
    bench.serve()
    assert len(peer.answers) == 1
    error = bench.intake.take(peer, bench.step(slots, 1), 0.0)
    assert error is not None
    assert {row.slot for row in error.rows} == set(ended)


def test_a_lease_elsewhere_leaves_a_group_on_the_fast_road() -> None:
    bench = Bench()
    peer, slots = bench.join(1, 2)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.join(2, 1)
    bench.serve()
    assert len(peer.groups) == 1
