"""Leases and the acceptance of rows."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.serving.slots import SlotTable
from aioseed.specs import ArraySpec
from aioseed.types import FIRST, StepColumns
from aioseed.wire.columns import StepLayout
from aioseed.wire.messages import ErrorCode

LAYOUT = StepLayout(ArraySpec("float32", (1,)), 0)


def rows(slots: list[int], epochs: list[int], sequence: list[int], first: list[bool] | None = None) -> StepColumns:
    columns = LAYOUT.allocate(len(slots))
    columns.slot[:] = slots
    columns.epoch[:] = epochs
    columns.sequence[:] = sequence
    columns.flags[:] = [FIRST if flag else 0 for flag in (first or [number == 0 for number in sequence])]
    return columns


def codes(table: SlotTable, owner: int, columns: StepColumns) -> list[ErrorCode]:
    return [code for _, code in table.sort(owner, columns).refused]


def leased(count: int = 4, generation: int = 3) -> tuple[SlotTable, list[int]]:
    table = SlotTable(8, generation)
    slots = table.lease(1, count, 0.0)
    assert slots is not None
    return table, table.epoch[slots].tolist()


def test_slots_are_leased_lowest_first_and_evaluation_from_the_top() -> None:
    table = SlotTable(8, 1)
    train, evaluate = table.lease(1, 3, 0.0), table.lease(2, 2, 0.0, evaluation=True)
    assert train is not None
    assert evaluate is not None
    assert train.tolist() == [0, 1, 2]
    assert evaluate.tolist() == [6, 7]
    assert table.leased == 5


def test_a_lease_beyond_capacity_changes_nothing() -> None:
    table = SlotTable(4, 1)
    assert table.lease(1, 3, 0.0) is not None
    assert table.lease(2, 2, 0.0) is None
    assert table.leased == 3


def test_a_lease_of_certain_slots_is_of_these_or_none() -> None:
    table = SlotTable(8, 1)
    slots = table.lease(1, 2, 0.0, first_slot=4)
    assert slots is not None and slots.tolist() == [4, 5]
    assert table.lease(2, 2, 0.0, first_slot=3) is None and table.lease(2, 2, 0.0, first_slot=5) is None
    slots = table.lease(2, 2, 0.0, first_slot=6)
    assert slots is not None and slots.tolist() == [6, 7]


def test_epochs_grow_with_each_lease_and_carry_the_generation() -> None:
    table, epochs = leased()
    assert epochs == [(3 << 32) + 1] * 4
    table.release(np.array([0, 1]))
    table.lease(2, 1, 0.0)
    assert int(table.epoch[0]) == (3 << 32) + 2
    assert SlotTable(1, 4).epoch[0] > table.epoch[0]


def test_the_first_row_of_an_epoch_has_sequence_0_and_is_first() -> None:
    table, epochs = leased()
    good = table.sort(1, rows([0, 1], epochs[:2], [0, 0]))
    assert good.apply.tolist() == [0, 1]
    assert not good.refused
    assert codes(table, 1, rows([0], epochs[:1], [0], [False])) == [ErrorCode.NOT_FIRST]
    assert codes(table, 1, rows([0], epochs[:1], [1])) == [ErrorCode.SEQUENCE_GAP]


def test_last_plus_one_applies_last_repeats_anything_else_is_refused() -> None:
    table, epochs = leased()
    table.enter(np.array([0, 1, 2, 3]), np.array([1000] * 4))
    table.answer(np.array([0, 1, 2, 3]), np.array(epochs, np.uint64), -1, 0.0)
    sorted_rows = table.sort(1, rows([0, 1, 2, 3], epochs, [1001, 1000, 999, 1002]))
    assert sorted_rows.apply.tolist() == [0]
    assert sorted_rows.repeat.tolist() == [1]
    assert [code for _, code in sorted_rows.refused] == [ErrorCode.SEQUENCE_GAP] * 2


def test_after_the_last_number_of_32_bits_comes_0_in_the_middle_of_an_episode() -> None:
    table, epochs = leased(3)
    table.enter(np.arange(3), np.full(3, 2**32 - 1, np.uint32))
    table.answer(np.arange(3), table.epoch[:3], table.changes, 0.0)
    sorted_rows = table.sort(1, rows([0, 1, 2], epochs[:3], [0, 2**32 - 1, 1], [False] * 3))
    assert (sorted_rows.apply.tolist(), sorted_rows.repeat.tolist()) == ([0], [1])
    assert sorted_rows.refused == ((2, ErrorCode.SEQUENCE_GAP),)


def test_a_repeat_is_legal_while_the_first_copy_is_under_way_and_a_new_step_is_not() -> None:
    table, epochs = leased()
    table.enter(np.array([0]), np.array([5]))
    assert table.sort(1, rows([0], epochs[:1], [5])).repeat.tolist() == [0]
    assert codes(table, 1, rows([0], epochs[:1], [6])) == [ErrorCode.UNANSWERED]


@pytest.mark.parametrize(
    ("slot", "epoch_offset", "owner", "code"),
    [
        (0, -1, 1, ErrorCode.STALE_EPOCH),
        (0, -1, 2, ErrorCode.STALE_EPOCH),
        (0, 1, 1, ErrorCode.NOT_LEASED),
        (0, 0, 2, ErrorCode.NOT_LEASED),
        (7, 0, 1, ErrorCode.NOT_LEASED),
        (8, 0, 1, ErrorCode.NOT_LEASED),
        (8, -1, 1, ErrorCode.NOT_LEASED),
        (2**32 - 1, 0, 1, ErrorCode.NOT_LEASED),
    ],
)
def test_what_was_not_leased_is_refused(slot: int, epoch_offset: int, owner: int, code: ErrorCode) -> None:
    table, epochs = leased()
    assert codes(table, owner, rows([slot], [epochs[0] + epoch_offset], [0])) == [code]


@pytest.mark.parametrize("owner", [1, 2])
def test_after_a_release_the_old_epoch_is_stale_once_the_slot_is_leased_again(owner: int) -> None:
    table, epochs = leased()
    table.release(np.array([0]))
    assert codes(table, 1, rows([0], epochs[:1], [0])) == [ErrorCode.NOT_LEASED]
    table.renew(np.array([0]), owner, 0.0)
    assert codes(table, 1, rows([0], epochs[:1], [0])) == [ErrorCode.STALE_EPOCH]


def test_a_slot_twice_in_one_step_is_refused_once() -> None:
    table, epochs = leased()
    assert codes(table, 1, rows([0, 0], [epochs[0]] * 2, [0, 0])) == [ErrorCode.DUPLICATE_SLOT]


def test_the_late_are_counted_until_they_send() -> None:
    table, _ = leased()
    table.enter(np.array([0, 1]), np.array([0, 0]))
    assert table.mark_late() == 2
    assert table.mark_late() == 0
    table.enter(np.array([2]), np.array([0]))
    assert table.late_count == 1
    assert np.flatnonzero(table.late).tolist() == [3]
    table.release(np.array([3]))
    assert table.late_count == 0


def test_who_was_late_is_expected_again_once_its_slot_is_leased_anew() -> None:
    table, _ = leased()
    table.enter(np.array([0, 1, 2]), np.array([0, 0, 0]))
    assert table.mark_late() == 1
    table.release(np.array([3]))
    table.renew(np.array([3]), 2, 0.0)
    assert not table.late[3]
    assert table.mark_late() == table.late_count == 1


def test_the_absent_count_as_late_once_and_only_while_they_are_leased() -> None:
    table, _ = leased()
    table.enter(np.array([0]), np.array([0]))
    assert table.mark_late() == 3
    assert table.mark_absent(np.array([0, 1])).tolist() == [0]
    assert table.late_count == 3
    for _ in range(2):
        table.release(np.array([0]))
    assert table.leased == 3
    assert table.mark_absent(np.array([0, 7])).size == 0
    assert table.late_count == 3


def test_a_step_deadline_runs_from_when_a_lease_was_given_or_handed_on() -> None:
    table = SlotTable(8, 3)
    table.step_deadline_s[:] = 5.0
    table.lease(1, 2, 100.0)
    assert table.overdue(104.0).size == 0
    table.transfer(np.array([1]), 2, 104.0)
    assert table.overdue(106.0).tolist() == [0]
    table.release(np.array([0]))
    assert table.overdue(106.0).size == 0
    table.renew(np.array([0]), 1, 107.0)
    assert table.overdue(108.0).size == 0


def test_overdue_slots_are_those_whose_environment_steps_for_too_long() -> None:
    table, epochs = leased()
    table.step_deadline_s[:4] = [1.0, 1.0, 5.0, 1.0]
    table.enter(np.array([3]), np.array([0]))
    assert table.overdue(2.0).tolist() == [0, 1]
    table.answer(np.array([3]), np.array(epochs[3:], np.uint64), -1, 2.0)
    assert table.overdue(2.5).tolist() == [0, 1]


def test_an_answer_to_an_ended_lease_does_not_touch_the_new_one() -> None:
    table, epochs = leased()
    table.enter(np.array([0]), np.array([0]))
    changes = table.changes
    table.release(np.array([0]))
    table.renew(np.array([0]), 9, 0.0)
    table.enter(np.array([0]), np.array([0]))
    table.answer(np.array([0]), np.array(epochs[:1], np.uint64), changes, 1.0)
    assert table.in_batch[0]
