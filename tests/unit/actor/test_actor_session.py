from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.actor.group import perform
from aioseed.actor.seeds import environment_seed
from aioseed.actor.session import ActorSession, End, Outcome
from aioseed.errors import ProtocolError, RefusedError
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, StepColumns
from aioseed.wire.columns import HEADER, ActionLayout, StepLayout, StepMessage, step_views
from aioseed.wire.messages import (
    Bye,
    Drain,
    Error,
    Hello,
    Lease,
    Message,
    Ping,
    Pong,
    Refused,
    RefusedRow,
    Revoke,
    Starting,
    Welcome,
    decode_control,
)

STEPS = StepLayout(ArraySpec("float32", (1,)), 0)
ACTIONS = ActionLayout(discrete(1000))


class Echo:
    """Observe the last action, so that an answer that went to another row shows."""

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        columns.flags[rows] = FIRST
        columns.observation[0][rows] = -1

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        columns.flags[:] = 0
        columns.observation[0][:, 0] = actions


def welcome(slots: Sequence[int], epochs: Sequence[int], **changes: Any) -> Welcome:
    fields: dict[str, Any] = {
        "library": "test",
        "run_id": "run",
        "slots": list(slots),
        "epochs": list(epochs),
        "max_step_rows": 64,
        "max_message_bytes": 2**20,
        "step_deadline_s": 60.0,
        "ping_interval_s": 5.0,
        "ping_timeout_s": 5.0,
        "resume_token": "",
    }
    return Welcome(**{**fields, **changes})


def greeted(groups: int = 1, rows: int = 2) -> tuple[ActorSession, list[StepMessage]]:
    messages = [StepMessage(STEPS, rows) for _ in range(groups)]
    session = ActorSession(messages, ACTIONS, [])
    session.open(Hello(library="test", actor_id="a", environments=groups * rows, observation={}, action={}))
    return session, messages


def act(payload: bytes, actions: Sequence[int]) -> bytes:
    rows = len(actions)
    return ACTIONS.encode(rows, payload[HEADER.size : ACTIONS.identity_bytes(rows)], np.array(actions, "<i4").tobytes())


def test_nothing_but_a_greeting_is_legal_before_the_welcome() -> None:
    session, _ = greeted()
    assert session.receive(Starting().encode()).events[0].kind == "starting" and session.answers == 1
    assert not session.idle  # a learner that compiles has not forgotten this actor
    assert decode_control(session.receive(Ping(number=4).encode()).sends[0]) == Pong(number=4)
    assert session.answers == 1, "it also comes from one who hears nothing of this actor"
    for message in (Lease(slots=[0], epochs=[1]), Revoke(slots=[0], epochs=[1]), Drain()):
        with pytest.raises(ProtocolError, match="not legal"):
            session.receive(message.encode())


def test_a_welcome_hands_every_group_its_slots_in_order() -> None:
    session, _ = greeted(groups=2, rows=2)
    outcome = session.receive(welcome([5, 6, 7, 8], [1, 2, 3, 4], seed=9).encode())
    assert [group for group, _ in outcome.jobs] == [0, 1]
    resets = [job.reset for _, job in outcome.jobs]
    assert [reset.slots.tolist() for reset in resets if reset] == [[5, 6], [7, 8]]
    assert [reset.epochs.tolist() for reset in resets if reset] == [[1, 2], [3, 4]]
    assert all(job.actions is None for _, job in outcome.jobs)
    seeds = [reset.seeds for reset in resets if reset]
    assert seeds == [[environment_seed(9, 5, 1), environment_seed(9, 6, 2)],
                     [environment_seed(9, 7, 3), environment_seed(9, 8, 4)]]  # fmt: skip


def test_a_session_that_goes_on_counts_anew_and_knows_which_groups_work() -> None:
    session, messages = greeted(groups=2, rows=1)
    environment, jobs = Echo(), dict(session.receive(welcome([0, 1], [1, 1]).encode()).jobs)
    for _ in range(2):  # the first row is no transition
        sent = session.stepped(0, perform(environment, messages[0], jobs[0])).sends[0]
        jobs = dict(session.receive(act(sent, [3])).jobs)
    assert session.acknowledged_rows == 1 and session.working == [0, 1]
    session.stepped(0, perform(environment, messages[0], jobs[0]))
    further = ActorSession(messages, ACTIONS, session._groups)
    further.open(Hello(library="test", actor_id="a", environments=2, observation={}, action={}))
    assert further.acknowledged_rows == 0 and further.working == [1]
    again = further.receive(welcome([0, 1], [1, 1]).encode()).sends[0]
    further.receive(act(again, [3]))
    assert further.acknowledged_rows == 1 and further.working == [0, 1]


def test_it_is_idle_for_as_long_as_nothing_is_leased_to_any_group() -> None:
    session, _ = greeted(groups=2, rows=1)
    said = [
        welcome([0, 1], [1, 1]),
        *(Revoke(slots=[slot], epochs=[1]) for slot in (0, 1)),
        Lease(slots=[1], epochs=[2]),
    ]
    idle = []
    for message in said:
        session.receive(message.encode())
        idle.append(session.idle)
    assert idle == [False, False, True, False]


def test_a_pong_says_how_long_environments_stepped_since_the_last_one() -> None:
    session, messages = greeted(groups=2, rows=1)

    def asked(number: int) -> float | None:
        pong = decode_control(session.receive(Ping(number=number).encode()).sends[0])
        assert isinstance(pong, Pong) and pong.number == number
        return pong.stepping_share

    session.look()  # before there is anything to step
    assert asked(1) is None
    jobs = session.receive(welcome([0, 1], [1, 1]).encode()).jobs
    session.look()
    assert asked(2) == 1.0
    session.look()
    for group, job in jobs:
        session.stepped(group, perform(Echo(), messages[group], job))  # type: ignore[arg-type]
        session.look()
    assert asked(3) == 0.5  # both, one and none of two groups
    assert asked(4) is None


def test_a_group_may_be_as_large_as_the_learner_takes() -> None:
    session, _ = greeted()
    largest = welcome([0, 1], [1, 1], max_step_rows=2, max_message_bytes=STEPS.size_bytes(2))
    assert len(session.receive(largest.encode()).jobs) == 1


@pytest.mark.parametrize(
    "message", [welcome([0], [1]), welcome([0, 1, 2], [1, 1, 1]), welcome([0, 1], [1, 1], protocol=2)]
)
def test_a_welcome_to_something_else_is_a_protocol_error(message: Welcome) -> None:
    session, _ = greeted()
    with pytest.raises(ProtocolError):
        session.receive(message.encode())


@pytest.mark.parametrize(
    "payload",
    [b"\x02", b"\x02\x01\x00\x00\x02\x00\x00\x00", b'{"type":"lease"}', b'{"type":'],
    ids=["short", "size", "fields", "json"],
)
def test_bytes_that_break_the_rules_are_a_fatal_protocol_error(payload: bytes) -> None:
    session, _ = greeted()
    session.receive(welcome([0, 1], [1, 1]).encode())
    with pytest.raises(ProtocolError) as caught:
        session.receive(payload)
    assert caught.value.fatal


@pytest.mark.parametrize("payload", [b"", b"\x01abc", b'{"type":"hum"}'])
def test_an_unknown_message_is_answered_and_forgotten(payload: bytes) -> None:
    session, _ = greeted()
    outcome = session.receive(payload)
    assert [decode_control(sent).type for sent in outcome.sends] == ["error"] and outcome.end is None


def test_more_slots_than_environments_are_a_protocol_error() -> None:
    session, _ = greeted()
    session.receive(welcome([0, 1], [1, 1]).encode())
    with pytest.raises(ProtocolError, match="slot 2 was leased"):
        session.receive(Lease(slots=[2], epochs=[1]).encode())


def test_an_answer_to_slots_that_were_never_leased_is_a_protocol_error() -> None:
    session, messages = greeted()
    job = session.receive(welcome([0, 1], [1, 1]).encode()).jobs[0][1]
    [step] = session.stepped(0, perform(Echo(), messages[0], job)).sends  # type: ignore[arg-type]
    foreign = bytearray(act(step, [1, 2]))
    foreign[HEADER.size + 16] = 9  # the first slot
    with pytest.raises(ProtocolError, match="never leased"):
        session.receive(bytes(foreign))


@pytest.mark.parametrize("choice", [1000, 2**31 - 1, -1, -(2**31)])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_choice_that_the_action_space_does_not_have_reaches_no_environment(choice: int, rows: int) -> None:
    session, messages = greeted()
    job = session.receive(welcome([0, 1], [1, 1]).encode()).jobs[0][1]
    if rows == 1:  # the learner has taken the other before it stepped
        session.receive(Revoke(slots=[0], epochs=[1]).encode())
    step, *_ = session.stepped(0, perform(Echo(), messages[0], job)).sends  # type: ignore[arg-type]
    legal = [999, 0][:rows]
    with pytest.raises(ProtocolError, match=f"makes the choice {choice}, and the action space has 0 to 999") as caught:
        session.receive(act(step, [*legal[:-1], choice]))
    assert caught.value.code == "action_rows" and caught.value.fatal
    [(_, job)] = session.receive(act(step, legal)).jobs
    assert job.actions is not None and sorted(job.actions.tolist()) == [0, 999]


@pytest.mark.parametrize(
    "hostile",
    [
        [welcome([1, 2], [1, 1], run_id="\x1b[31m")],
        [welcome([1, 2], [1, 1]), Error(code="\x1b[31m", message="\n")],
        [welcome([1, 2], [1, 1]), Drain(reason="\x1b[31m")],
        [Refused(code="version", message="\x1b[31m", field="\n", ours="\x07", theirs="\x07")],
    ],
    ids=["welcome", "error", "drain", "refused"],
)
def test_words_of_a_learner_do_nothing_to_a_terminal(hostile: list[Message]) -> None:
    session, _ = greeted()
    outcome = [session.receive(message.encode()) for message in hostile][-1]
    told = [event.message for event in outcome.events]
    if outcome.end is not None and isinstance(error := outcome.end.error, RefusedError):
        told += [str(error), error.field, error.ours, error.theirs]
    assert told and all(words.isprintable() for words in told)


def test_an_answer_is_accepted_once() -> None:
    session, messages = greeted()
    job = session.receive(welcome([0, 1], [1, 1]).encode()).jobs[0][1]
    [step] = session.stepped(0, perform(Echo(), messages[0], job)).sends  # type: ignore[arg-type]
    assert session.receive(act(step, [1, 2])).jobs[0][1].actions.tolist() == [1, 2]  # type: ignore[union-attr]
    with pytest.raises(ProtocolError, match="does not answer"):
        session.receive(act(step, [1, 2]))


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("run_over", "run_over"),
        ("shutdown", "retry"),
        ("failed", "retry"),
        ("replaced", "retry"),
        ("protocol", "failed"),
    ],
)
def test_a_bye_says_whether_to_come_back(code: Any, outcome: str) -> None:
    session, _ = greeted()
    session.receive(welcome([0, 1], [1, 1]).encode())
    end = session.receive(Bye(code=code, reason="because").encode()).end
    assert end is not None and end.outcome == outcome
    assert outcome == "run_over" or "because" in str(end.error)
    assert session.ping() is None and session.leave("leaving", "") is None


def packed(*columns: Any) -> bytes:
    """Return an ACTION of these columns, laid out by the letter of the wire."""
    message = bytearray(HEADER.pack(2, 1, 0, len(columns[0])))
    for column, dtype in zip(columns, ("<u8", "<u4", "<u4", "<i4"), strict=True):
        message += bytes(-len(message) % 8) + np.asarray(column, dtype).tobytes()
    return bytes(message)


def test_a_step_that_is_ready_while_the_learner_drains_is_not_sent() -> None:
    session, messages = greeted()
    job = session.receive(welcome([0, 1], [1, 1]).encode()).jobs[0][1]
    session.receive(Drain().encode())
    assert session.stepped(0, perform(Echo(), messages[0], job)) == Outcome()  # type: ignore[arg-type]


def test_a_row_that_is_leased_again_while_it_steps_is_not_claimed() -> None:
    session, messages = greeted()
    job = session.receive(welcome([0, 1], [1, 1]).encode()).jobs[0][1]
    session.receive(Revoke(slots=[1], epochs=[1]).encode())
    session.receive(Lease(slots=[1], epochs=[2]).encode())
    [step] = session.stepped(0, perform(Echo(), messages[0], job)).sends  # type: ignore[arg-type]
    assert step_views(STEPS, step).slot.tolist() == [0]


@pytest.mark.parametrize(("groups", "rows"), [(1, 2), (2, 1)])
def test_a_slot_whose_row_another_took_gets_one_that_is_vacant(groups: int, rows: int) -> None:
    session, messages = greeted(groups, rows)

    def sent(jobs: Any) -> list[bytes]:
        works = [(group, perform(Echo(), messages[group], job)) for group, job in jobs]  # type: ignore[arg-type]
        return [step for group, work in works for step in session.stepped(group, work).sends]

    sent(session.receive(welcome([0, 1], [1, 1]).encode()).jobs)
    session.receive(Revoke(slots=[0, 1], epochs=[1, 1]).encode())
    steps = sent(session.receive(Lease(slots=[7, 0], epochs=[5, 2]).encode()).jobs)
    for _ in range(2):
        slots = [step_views(STEPS, step).slot.tolist() for step in steps]
        answers = [session.receive(act(step, named)) for step, named in zip(steps, slots, strict=True)]
        steps = sent(job for answer in answers for job in answer.jobs)
    assert sorted(slot for named in slots for slot in named) == [0, 7]


def test_a_bye_without_a_reason_is_told_with_the_complaint_before_it() -> None:
    session, _ = greeted()
    session.receive(welcome([0, 1], [1, 1]).encode())
    assert session.receive(Error(code="unknown_message", message="what is a song").encode()).end is None
    end = session.receive(Bye(code="failed").encode()).end
    assert end is not None and "what is a song" in str(end.error)


def test_one_row_that_the_two_ends_disagree_about_ends_the_session_among_others_whose_leases_ended() -> None:
    session, messages = greeted()
    job = session.receive(welcome([0, 1], [1, 1]).encode()).jobs[0][1]
    session.stepped(0, perform(Echo(), messages[0], job))  # type: ignore[arg-type]
    rows = [RefusedRow(slot=0, epoch=1, sequence=0, code="stale_epoch")]
    assert session.receive(Error(code="stale_epoch", rows=rows).encode()).end is None
    rows.append(RefusedRow(slot=1, epoch=1, sequence=0, code="sequence_gap"))
    end = session.receive(Error(code="stale_epoch", rows=rows).encode()).end
    assert end is not None and end.outcome == "retry" and not end.may_resume


class StrictLearner:
    """Keep the learner's side of the slots by the letter of the wire, and check every row that arrives."""

    def __init__(self, slots: Sequence[int]) -> None:
        self.epoch = dict.fromkeys(slots, 1)
        self.last = dict.fromkeys(slots, -1)
        self.leased = dict.fromkeys(slots, True)
        self.waiting: list[StepColumns] = []
        self.acted: dict[int, int] = {}  # slot -> action of its last answer
        self.number = 0

    def take(self, payload: bytes) -> list[bytes]:
        columns = step_views(STEPS, payload)
        rows = list(zip(columns.slot.tolist(), columns.epoch.tolist(), columns.sequence.tolist(), strict=True))
        assert len({slot for slot, _, _ in rows}) == len(rows)
        refused = [row for row in rows if not (self.leased[row[0]] and self.epoch[row[0]] == row[1])]
        if refused:
            named = [RefusedRow(slot=s, epoch=e, sequence=q, code="stale_epoch") for s, e, q in refused]
            return [Error(code="stale_epoch", rows=named).encode()]
        for index, (slot, _, sequence) in enumerate(rows):
            assert sequence == self.last[slot] + 1
            assert (columns.flags[index] == FIRST) == (sequence == 0)
            assert columns.observation[0][index, 0] == (self.acted[slot] if sequence else -1)
            assert not any(slot in waiting.slot for waiting in self.waiting)
            self.last[slot] = sequence
        self.waiting.append(columns)
        return []

    def answer(self, index: int, whole: bool) -> list[bytes]:
        columns = self.waiting.pop(index)
        keep = np.array(
            [
                whole or (self.leased[slot] and self.epoch[slot] == epoch)
                for slot, epoch in zip(columns.slot.tolist(), columns.epoch.tolist(), strict=True)
            ]
        )
        if not keep.any():
            return []
        self.number += 1
        actions = [(self.number + 7 * slot) % 1000 for slot in columns.slot[keep].tolist()]
        self.acted.update(zip(columns.slot[keep].tolist(), actions, strict=True))
        return [packed(columns.epoch[keep], columns.slot[keep], columns.sequence[keep], actions)]

    def revoke(self, slot: int) -> list[bytes]:
        if not self.leased[slot]:
            return []
        self.leased[slot] = False
        return [Revoke(slots=[slot], epochs=[self.epoch[slot]]).encode()]

    def lease(self, slot: int) -> list[bytes]:
        if self.leased[slot]:
            return []
        self.leased[slot], self.last[slot] = True, -1
        self.epoch[slot] += 1
        return [Lease(slots=[slot], epochs=[self.epoch[slot]]).encode()]


class World:
    """Put an actor's session, its workers and a strict learner together, every message a step of its own."""

    def __init__(self) -> None:
        self.slots = [10, 11, 12, 13, 14]
        self.messages = [StepMessage(STEPS, 3), StepMessage(STEPS, 2)]
        self.session = ActorSession(self.messages, ACTIONS, [])
        self.session.open(Hello(library="test", actor_id="a", environments=5, observation={}, action={}))
        self.learner = StrictLearner(self.slots)
        self.to_learner: list[bytes] = []
        self.to_actor: list[bytes] = [welcome(self.slots, [1] * 5).encode()]
        self.jobs: list[list[Any]] = [[], []]

    def apply(self, outcome: Outcome) -> None:
        assert outcome.end in (None, End("run_over"))
        self.to_learner.extend(outcome.sends)
        for group, job in outcome.jobs:
            assert not self.jobs[group], "a group has one job at a time"
            self.jobs[group].append(job)

    def move(self, kind: int, which: int) -> None:
        slot, group = self.slots[which % 5], which % 2
        if kind == 0 and self.to_actor:
            self.apply(self.session.receive(self.to_actor.pop(0)))
        elif kind == 1 and self.to_learner:
            self.to_actor += self.learner.take(self.to_learner.pop(0))
        elif kind == 2 and self.jobs[group]:
            work = perform(Echo(), self.messages[group], self.jobs[group].pop())  # type: ignore[arg-type]
            self.apply(self.session.stepped(group, work))
        elif kind == 3 and self.learner.waiting:
            self.to_actor += self.learner.answer(which % len(self.learner.waiting), whole=which % 3 > 0)
        elif kind == 4:
            self.to_actor += self.learner.revoke(slot)
        elif kind == 5:
            self.to_actor += self.learner.lease(slot)

    def run(self, rounds: int) -> None:
        moves: list[Callable[[], None]] = [
            lambda kind=kind, which=which: self.move(kind, which)  # type: ignore[misc]
            for kind in (0, 1, 2, 3)
            for which in (0, 1)
        ]
        for _ in range(rounds):
            for move in moves:
                move()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 29)), max_size=150))
def test_however_messages_cross_no_row_breaks_the_rules_and_no_leased_row_starves(
    moves: list[tuple[int, int]],
) -> None:
    world = World()
    for kind, which in moves:
        world.move(kind, which)
    world.run(40)
    for slot in world.slots:  # by now all news has arrived
        world.to_actor += world.learner.lease(slot)
    world.run(40)
    before = dict(world.learner.last)
    world.run(40)
    assert all(world.learner.last[slot] > before[slot] for slot in world.slots)
