from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest

from aioseed.errors import ProtocolError
from aioseed.wire.messages import ControlMessage
from aioseed.wire.session import SessionMachine, Side, State

KINDS = [cls.kind for cls in get_args(ControlMessage)] + ["step", "action", "dance"]
EVERYTHING = list(itertools.product(State, Side, KINDS))
OTHER = {Side.ACTOR: Side.LEARNER, Side.LEARNER: Side.ACTOR}


def documented() -> dict[tuple[State, Side, str], State]:
    """Return the table of docs/reference/wire.md."""
    text = (Path(__file__).parents[3] / "docs/reference/wire.md").read_text(encoding="utf-8")
    table: dict[tuple[State, Side, str], State] = {}
    for name, actor, learner in re.findall(r"^\| ([A-Z]+)[^|]*\|([^|]*)\|([^|]*)\|$", text, re.M):
        for side, cell in ((Side.ACTOR, actor), (Side.LEARNER, learner)):
            for clause in cell.split(";"):
                target = re.search(r"→ ([A-Z]+)", clause)
                kinds = re.findall(r"`(\w+)`|\b(STEP|ACTION)\b", clause)
                after = State[target[1] if target else name]
                table |= {(State[name], side, (control or column.lower())): after for control, column in kinds}
    return table


DOCUMENTED = documented()


def machine(side: Side, state: State) -> SessionMachine:
    made = SessionMachine(side)
    made.state = state
    return made


def test_the_documented_table_was_found() -> None:
    assert {state for state, _, _ in DOCUMENTED} == {*State} - {State.CLOSED}
    assert len(DOCUMENTED) > 30


@pytest.mark.parametrize(("state", "side", "kind"), EVERYTHING)
def test_both_ends_obey_the_documented_table(state: State, side: Side, kind: str) -> None:
    sender, receiver = machine(side, state), machine(OTHER[side], state)
    after = DOCUMENTED.get((state, side, kind))
    assert sender.may_send(kind) == (after is not None)
    if after is not None:
        sender.sent(kind)
        receiver.received(kind)
        assert sender.state is receiver.state is after
        return
    with pytest.raises(RuntimeError, match=kind):
        sender.sent(kind)
    with pytest.raises(ProtocolError) as caught:
        receiver.received(kind)
    assert (caught.value.code, caught.value.fatal) == ("unexpected_message", True)
    assert sender.state is receiver.state is state


def test_asking_whether_something_may_be_sent_changes_nothing() -> None:
    session = SessionMachine(Side.ACTOR)
    assert session.may_send("hello") and session.may_send("hello")
    assert session.state is State.OPENING


def test_a_session_from_hello_to_bye() -> None:
    actor, learner = SessionMachine(Side.ACTOR), SessionMachine(Side.LEARNER)
    ends = {Side.ACTOR: actor, Side.LEARNER: learner}
    talk = "hello >starting >welcome step >action >lease step ping >pong >revoke >drain step >action >bye"
    for word in talk.split():
        side, kind = (Side.LEARNER, word[1:]) if word.startswith(">") else (Side.ACTOR, word)
        ends[side].sent(kind)
        ends[OTHER[side]].received(kind)
    assert actor.state is learner.state is State.CLOSED


def test_a_step_that_crosses_a_drain_is_legal() -> None:
    actor, learner = machine(Side.ACTOR, State.ACTIVE), machine(Side.LEARNER, State.ACTIVE)
    actor.sent("step")
    learner.sent("drain")
    learner.received("step")
    actor.received("drain")
    assert actor.state is learner.state is State.DRAINING
