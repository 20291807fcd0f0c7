"""What an actor tells the learner and its user, and what it makes of messages that do not concern it."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from aioseed.actor.group import Work, perform
from aioseed.actor.session import ActorEvent, ActorSession
from aioseed.errors import ProtocolError, UsageError
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, StepColumns
from aioseed.wire.columns import HEADER, ActionLayout, StepLayout, StepMessage
from aioseed.wire.messages import (
    Bye,
    Drain,
    Error,
    ErrorCode,
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


def welcome(slots: list[int], **changes: Any) -> Welcome:
    fields: dict[str, Any] = {
        "library": "test",
        "run_id": "run",
        "slots": slots,
        "epochs": [1] * len(slots),
        "max_step_rows": 64,
        "max_message_bytes": 2**20,
        "step_deadline_s": 60.0,
        "ping_interval_s": 5.0,
        "ping_timeout_s": 5.0,
        "resume_token": "",
    }
    return Welcome(**{**fields, **changes})


def greeted(groups: int, rows: int) -> tuple[ActorSession, list[StepMessage]]:
    messages = [StepMessage(STEPS, rows) for _ in range(groups)]
    session = ActorSession(messages, ACTIONS, [])
    session.open(Hello(library="test", actor_id="a", environments=groups * rows, observation={}, action={}))
    return session, messages


def joined(groups: int, rows: int) -> tuple[ActorSession, list[StepMessage]]:
    session, messages = greeted(groups, rows)
    session.receive(welcome(list(range(groups * rows))).encode())
    return session, messages


def act(step: bytes) -> bytes:
    rows = HEADER.unpack_from(step)[3]
    return ACTIONS.encode(rows, step[HEADER.size : ACTIONS.identity_bytes(rows)], bytes(4 * rows))


class Still:
    """Environments in which nothing happens."""

    def reset(self, rows: np.ndarray, seeds: Any, columns: StepColumns) -> None:
        columns.flags[rows] = FIRST

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        columns.flags[:] = 0


def worked(message: StepMessage, job: Any) -> Work:
    return perform(Still(), message, job)  # type: ignore[arg-type]


def test_every_event_is_of_a_kind_that_users_know_and_says_what_happened() -> None:
    session, _ = greeted(1, 2)
    said: list[Message] = [
        Starting(),
        welcome([0, 1]),
        Revoke(slots=[1], epochs=[1], reason="late"),
        Revoke(slots=[0], epochs=[1]),
        Lease(slots=[1], epochs=[2]),
        Error(code="stale_epoch", rows=[RefusedRow(slot=0, epoch=1, sequence=0, code="stale_epoch")]),
        Error(code="unknown_message", message="what is a song"),
        Drain(),
    ]
    told = [event for message in said for event in session.receive(message.encode()).events]
    told += session.receive(b'{"type":"hum"}').events
    assert {event.kind for event in told} <= {*get_args(get_type_hints(ActorEvent)["kind"])}
    assert [tuple(event) for event in told[:-1]] == [
        ("starting", "the learner is making ready"),
        ("welcomed", "joined run run with 2 environments"),
        ("revoked", "the learner took 1 slots: late"),
        ("revoked", "the learner took 1 slots"),
        ("leased", "the learner gave 1 slots"),
        ("rows_refused", "the learner refused a message (stale_epoch)"),
        ("error", "the learner refused a message (unknown_message): what is a song"),
        ("draining", "the learner is going down"),
    ]
    assert told[-1].kind == "error"


def test_pings_are_numbered_and_only_what_answers_this_actor_counts_as_an_answer() -> None:
    session, messages = greeted(1, 1)
    [(_, job)] = session.receive(welcome([0]).encode()).jobs
    numbers = [decode_control(ping).number for ping in (session.ping(), session.ping())]  # type: ignore[arg-type, union-attr]
    assert numbers[1] == numbers[0] + 1
    session.look()
    assert decode_control(session.receive(Ping(number=4).encode()).sends[0]) == Pong(number=4, stepping_share=1.0)
    assert session.answers == 1
    [step] = session.stepped(0, worked(messages[0], job)).sends
    assert session.step_bytes == len(step)
    session.receive(act(step))
    assert session.answers == 2
    session.receive(Pong(number=numbers[1]).encode())
    assert session.answers == 3


def test_nobody_acts_before_the_welcome_or_after_the_last_word() -> None:
    session, messages = greeted(1, 1)
    with pytest.raises(ProtocolError, match="not legal"):
        session.receive(act(StepMessage(STEPS, 1).tobytes()))
    session, messages = greeted(1, 1)
    [(_, job)] = session.receive(welcome([0]).encode()).jobs
    [step] = session.stepped(0, worked(messages[0], job)).sends
    assert session.leave("leaving", "") is not None
    outcome = session.receive(b'{"type":"hum"}')
    assert not outcome.sends and [event.kind for event in outcome.events] == ["error"]
    with pytest.raises(ProtocolError, match="not legal"):
        session.receive(act(step))


@pytest.mark.parametrize(
    "messages",
    [
        [welcome([0])],
        [welcome([0, 1], protocol=2)],
        [welcome([0, 1]), Lease(slots=[2], epochs=[1])],
        [welcome([0, 1]), Bye(code="protocol")],
    ],
)
def test_what_is_wrong_has_a_word_of_the_wire(messages: list[Message]) -> None:
    session, _ = greeted(1, 2)
    for message in messages[:-1]:
        session.receive(message.encode())
    try:
        end = session.receive(messages[-1].encode()).end
        error = end.error if end is not None else None
    except ProtocolError as raised:
        error = raised
    assert isinstance(error, ProtocolError) and error.code in {*ErrorCode}


def test_an_answer_to_foreign_slots_has_a_word_of_the_wire() -> None:
    session, _ = joined(1, 1)
    foreign = StepMessage(STEPS, 1)
    foreign.columns.slot[:] = 9
    with pytest.raises(ProtocolError) as caught:
        session.receive(act(foreign.tobytes()))
    assert caught.value.code == ErrorCode.ACTION_ROWS


@pytest.mark.parametrize(("missing_bytes", "missing_rows"), [(1, 0), (0, 1)])
def test_a_group_that_is_larger_than_the_learner_takes_is_told_what_to_do(
    missing_bytes: int, missing_rows: int
) -> None:
    session, _ = greeted(2, 3)
    limits = {"max_step_rows": 3 - missing_rows, "max_message_bytes": STEPS.size_bytes(3) - missing_bytes}
    with pytest.raises(UsageError, match=r"too large for this learner.*: use more groups$"):
        session.receive(welcome(list(range(6)), **limits).encode())


def test_messages_about_slots_that_were_never_leased_here_change_nothing() -> None:
    session, messages = greeted(1, 1)
    [(_, job)] = session.receive(welcome([0]).encode()).jobs
    [step] = session.stepped(0, worked(messages[0], job)).sends
    rows = [RefusedRow(slot=9, epoch=1, sequence=0, code="stale_epoch")]
    for message in (Revoke(slots=[9], epochs=[1]), Error(code="stale_epoch", rows=rows)):
        outcome = session.receive(message.encode())
        assert not outcome.sends and not outcome.jobs and outcome.end is None
    assert len(session.receive(act(step)).jobs) == 1


def test_a_slot_comes_back_to_the_group_that_had_it() -> None:
    session, messages = greeted(2, 1)
    for group, job in session.receive(welcome([0, 1]).encode()).jobs:
        session.stepped(group, worked(messages[group], job))
    session.receive(Revoke(slots=[0, 1], epochs=[1, 1]).encode())
    [(group, job)] = session.receive(Lease(slots=[1], epochs=[2]).encode()).jobs
    assert group == 1 and job.reset is not None and job.reset.slots.tolist() == [1]


def test_a_bye_without_a_reason_is_told_with_the_word_of_a_complaint_without_one() -> None:
    session, _ = joined(1, 1)
    session.receive(Error(code="size_mismatch").encode())
    end = session.receive(Bye(code="failed").encode()).end
    assert end is not None and str(end.error).endswith("(failed): size_mismatch")


def test_a_refusal_that_may_pass_is_a_reason_to_ask_again() -> None:
    session, _ = greeted(1, 1)
    for code, may_resume in (("capacity", True), ("resume_token", False)):
        session, _ = greeted(1, 1)
        end = session.receive(Refused(code=code, message="", retry=True).encode()).end
        assert end is not None and (end.outcome, end.may_resume) == ("retry", may_resume)
