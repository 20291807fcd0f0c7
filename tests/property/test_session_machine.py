from __future__ import annotations

from collections import deque
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aioseed.errors import ProtocolError
from aioseed.wire.messages import ControlMessage
from aioseed.wire.session import SessionMachine, Side, State

KINDS = sorted({cls.kind for cls in get_args(ControlMessage)} | {"step", "action", "dance"})
SIDES = st.sampled_from(Side)
OTHER = {Side.ACTOR: Side.LEARNER, Side.LEARNER: Side.ACTOR}
ORDER = list(State)


class TwoEnds(RuleBasedStateMachine):
    """Run a session over a road that delays messages at will, but keeps the order of each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {side: SessionMachine(side) for side in Side}
        self.road: dict[Side, deque[str]] = {side: deque() for side in Side}  # by receiver
        self.drained = False  # the learner has said DRAIN

    @rule(side=SIDES, choice=st.data())
    def say(self, side: Side, choice: st.DataObject) -> None:
        legal = [kind for kind in KINDS if self.ends[side].may_send(kind)]
        if not legal:
            return
        # BYE and REFUSED are rarer than what keeps the session going.
        calm = [kind for kind in legal if kind not in ("bye", "refused")] * 8
        kind = choice.draw(st.sampled_from(calm + legal))
        self.ends[side].sent(kind)
        self.road[OTHER[side]].append(kind)
        self.drained |= kind == "drain"

    @rule(side=SIDES)
    def hear(self, side: Side) -> None:
        """Let a message arrive: one that its sender was allowed to say is never illegal, whatever crossed it."""
        if not self.road[side]:
            return
        kind = self.road[side].popleft()
        if self.ends[side].state is State.CLOSED:
            return  # whoever closed reads no further
        self.ends[side].received(kind)

    @rule(side=SIDES, kind=st.sampled_from(KINDS))
    def misbehave(self, side: Side, kind: str) -> None:
        end = self.ends[side]
        if end.may_send(kind):
            return
        before = end.state
        with pytest.raises(RuntimeError):
            end.sent(kind)
        assert end.state is before

    @precondition(lambda self: any(end.state is State.CLOSED for end in self.ends.values()))
    @rule(side=SIDES, kind=st.sampled_from(KINDS))
    def hear_after_the_end(self, side: Side, kind: str) -> None:
        if self.ends[side].state is State.CLOSED:
            with pytest.raises(ProtocolError):
                self.ends[side].received(kind)

    @invariant()
    def ends_that_have_heard_all_agree(self) -> None:
        states = {end.state for end in self.ends.values()}
        if not any(self.road.values()):
            assert len(states) == 1

    @invariant()
    def only_the_documented_crossings_part_them(self) -> None:
        """What one end is ahead by is under way to the other."""
        actor, learner = self.ends[Side.ACTOR].state, self.ends[Side.LEARNER].state
        if actor is not learner and State.CLOSED not in (actor, learner):
            behind = Side.ACTOR if ORDER.index(actor) < ORDER.index(learner) else Side.LEARNER
            assert {"hello", "welcome", "drain"} & {*self.road[behind]}

    @invariant()
    def steps_go_unanswered_only_by_a_drain(self) -> None:
        if State.DRAINING in {end.state for end in self.ends.values()}:
            assert self.drained


TwoEnds.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestTwoEnds = TwoEnds.TestCase
