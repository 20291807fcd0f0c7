"""What the environments of rows are stepped with that the learner has taken away."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.actor.group import NOTHING, Group, perform
from aioseed.errors import ProtocolError
from aioseed.specs import ActionSpec, ArraySpec
from aioseed.types import FIRST, EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed.wire.columns import HEADER, ActionLayout, StepLayout, StepMessage, step_views
from aioseed.wire.messages import RefusedRow


class Heard:
    """Two environments that keep what they were stepped with."""

    spec = EnvironmentSpec(
        ArraySpec("float32", (1,)), ActionSpec("box", ArraySpec("float32", (1,)), low=(5.0,), high=(10.0,))
    )
    metrics: tuple[EnvironmentMetric, ...] = ()
    count = 2

    def __init__(self) -> None:
        self.actions: list[list[list[float]]] = []

    def reset(self, rows: np.ndarray, seeds: list[int], columns: StepColumns) -> None:
        """Begin."""

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        self.actions.append(actions.tolist())

    def close(self) -> None:
        """End."""


def waiting_group() -> tuple[Heard, StepMessage, Group]:
    """Return two environments whose first STEP waits for its answer; slot 1 was taken away and leased anew since."""
    env = Heard()
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, ActionLayout(env.spec.action), lambda slot, epoch: 1)
    group.stepped(perform(env, message, group.begin([0, 1], [1, 1])))
    group.revoke(1, 1)
    assert group.lease(1, 2) == NOTHING and group.holds(1, 2) and group.leased_rows == 2
    return env, message, group


def answer_of(message: StepMessage) -> bytes:
    """Return the ACTION of a STEP of the first row alone."""
    sent = message.subset(np.array([True, False]))
    identity = bytes(sent[HEADER.size : message.layout.identity_bytes(1)])
    return ActionLayout(Heard.spec.action).encode(1, identity, np.array([[7.0]], np.float32).tobytes())


def test_a_lease_that_is_taken_back_before_it_began_never_begins() -> None:
    _, message, group = waiting_group()
    group.revoke(1, 2)
    job = group.answered(answer_of(message), 1).job
    assert job is not None and job.reset is None


def test_a_lease_that_had_not_begun_is_given_up_where_the_next_session_has_it_no_more() -> None:
    _, message, group = waiting_group()
    group.keep({0: 1, 1: 2})
    assert group.holds(1, 2) and group.leased_rows == 2
    group.keep({0: 1})
    assert not group.holds(1, 2) and group.leased_rows == 1
    job = group.answered(answer_of(message), 1).job
    assert job is not None and job.reset is None


def test_a_slot_that_is_leased_anew_while_it_has_a_lease_begins_once() -> None:
    env = Heard()
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, ActionLayout(env.spec.action), lambda slot, epoch: 1)
    group.stepped(perform(env, message, group.begin([0, 1], [1, 1])))
    group.lease(1, 2)
    job = group.answered(answer_of(message), 1).job
    assert job is not None and job.reset is not None and job.reset.rows.tolist() == [1]
    assert group.leased_rows == 2


def test_an_error_about_another_step_than_the_one_that_waits_changes_nothing() -> None:
    _, message, group = waiting_group()
    for slot, epoch, sequence in ((0, 1, 7), (0, 0, 0), (9, 1, 0)):
        row = RefusedRow(slot=slot, epoch=epoch, sequence=sequence, code="stale_epoch")
        assert group.refused([row]) == NOTHING and group.holds(0, 1)
    group.answered(answer_of(message), 1)
    row = RefusedRow(slot=0, epoch=1, sequence=0, code="stale_epoch")
    assert group.refused([row]) == NOTHING and group.holds(0, 1), "none waits any more"


@pytest.mark.parametrize(("slot", "epoch"), [(0, 0), (0, 2), (9, 1)])
def test_a_lease_that_is_no_more_or_never_was_is_taken_back_without_an_effect(slot: int, epoch: int) -> None:
    _, _, group = waiting_group()
    assert group.revoke(slot, epoch) == NOTHING
    assert group.holds(0, 1) and group.holds(1, 2) and group.leased_rows == 2


def test_every_row_gets_its_own_action_and_rows_in_another_order_are_refused() -> None:
    env = Heard()
    box = ActionSpec("box", ArraySpec("float32", (3,)), low=(0.0,) * 3, high=(9.0,) * 3)
    layout, message = ActionLayout(box), StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, layout, lambda slot, epoch: 1)
    group.stepped(perform(env, message, group.begin([4, 7], [1, 1])))
    chosen = np.arange(6, dtype=np.float32).reshape(2, 3)

    def answer() -> bytes:
        return layout.encode(2, message.tobytes()[HEADER.size : message.layout.identity_bytes(2)], chosen.tobytes())

    right = answer()
    message.columns.slot[:] = [7, 4]
    wrong = answer()
    message.columns.slot[:] = [4, 7]
    with pytest.raises(ProtocolError, match="does not answer the rows"):
        group.answered(wrong, 2)
    job = group.answered(right, 2).job
    assert job is not None and job.actions is not None and job.actions.tolist() == chosen.tolist()


def test_an_answer_to_a_part_of_a_step_is_of_its_sequence_numbers_and_counts_its_transitions() -> None:
    env, message, group = waiting_group()
    group.revoke(1, 2)
    message.columns.flags[0] = FIRST
    counted = []
    for _ in range(2):
        message.columns.sequence[0] += 1
        wrong = answer_of(message)
        message.columns.sequence[0] -= 1
        with pytest.raises(ProtocolError):
            group.answered(wrong, 1)
        job = group.answered(answer_of(message), 1).job
        counted.append(group.acknowledged_rows)
        assert job is not None
        message.columns.flags[:] = 0
        group.stepped(perform(env, message, job))
    assert counted == [0, 1]


def test_an_answer_that_crosses_the_end_of_all_leases_moves_nothing() -> None:
    _, message, group = waiting_group()
    group.keep({0: 1})
    message.columns.epoch[1] = 1
    identity = message.tobytes()[HEADER.size : message.layout.identity_bytes(2)]
    answer = ActionLayout(Heard.spec.action).encode(2, identity, np.array([[7.0], [7.0]], np.float32).tobytes())
    group.revoke(0, 1)
    assert group.answered(answer, 2) == NOTHING and group.acknowledged_rows == 0


def test_two_new_slots_take_two_rows_and_a_third_is_refused() -> None:
    env = Heard()
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, ActionLayout(env.spec.action), lambda slot, epoch: 1)
    begin = group.begin([0, 1], [1, 1])
    for slot in (0, 1):
        group.revoke(slot, 1)
    for slot in (5, 6):
        group.lease(slot, 1)
    with pytest.raises(ProtocolError, match="every environment here has a slot"):
        group.lease(7, 1)
    job = group.stepped(perform(env, message, begin)).job
    assert job is not None and job.reset is not None and job.reset.slots.tolist() == [5, 6]
    assert job.reset.rows.tolist() == [0, 1]


def test_rows_that_were_taken_away_at_work_are_claimed_once() -> None:
    env = Heard()
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, ActionLayout(env.spec.action), lambda slot, epoch: 1)
    begin = group.begin([0, 1], [1, 1])
    group.revoke(1, 1)
    assert len(group.stepped(perform(env, message, begin)).sends) == 2
    job = group.answered(answer_of(message), 1).job
    assert job is not None
    assert len(group.stepped(perform(env, message, job)).sends) == 1


def named_in(message: StepMessage, sends: tuple[bytes, ...]) -> list[tuple[list[int], list[int]]]:
    """Return the slots and epochs of the rows of STEPs."""
    steps = [step_views(message.layout, sent) for sent in sends]
    return [(columns.slot.tolist(), columns.epoch.tolist()) for columns in steps]


@pytest.mark.parametrize("slot", [1, 6])
def test_a_lease_that_was_taken_away_before_its_row_came_back_is_claimed(slot: int) -> None:
    env = Heard()
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, ActionLayout(env.spec.action), lambda slot, epoch: 1)
    begin = group.begin([0, 1], [1, 1])
    group.revoke(1, 1)  # at work for too long
    group.lease(slot, 2)  # given again, as to an actor that had fallen silent
    group.revoke(slot, 2)  # and still at work
    sends = group.stepped(perform(env, message, begin)).sends
    assert named_in(message, sends) == [([0], [1]), ([slot], [2])]
    assert group.lease(slot, 3) == NOTHING  # the learner's answer
    job = group.answered(answer_of(message), 1).job
    assert job is not None and job.reset is not None and job.reset.slots.tolist() == [slot]
    assert named_in(message, group.stepped(perform(env, message, job)).sends) == [([0, slot], [1, 3])]


def test_a_lease_that_was_taken_away_while_the_others_waited_for_their_answer_is_claimed_with_their_next_step() -> None:
    env, message, group = waiting_group()
    assert group.revoke(1, 2) == NOTHING
    job = group.answered(answer_of(message), 1).job
    assert job is not None
    assert named_in(message, group.stepped(perform(env, message, job)).sends) == [([0], [1]), ([1], [2])]


def test_a_row_that_was_taken_away_is_stepped_with_a_legal_action() -> None:
    env = Heard()
    layout = ActionLayout(env.spec.action)
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, layout, lambda slot, epoch: 1)
    group.stepped(perform(env, message, group.begin([0, 1], [1, 1])))
    group.revoke(1, 1)
    group.stepped(perform(env, message, group.answered(answer_of(message), 1).job))
    assert env.actions == [[[7.0], [5.0]]]
