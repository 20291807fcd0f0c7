"""Which message is legal when, as one table that both ends obey.

Theory of operation. A session is one channel's conversation. Both ends keep a `SessionMachine` and show it every
message they send or receive; they agree on the state because the table has no hidden input. What the messages *mean*
(leases, sequence numbers) is decided elsewhere; here it is only decided whether they may be said.

Messages cross on the road, and only two crossings matter. A STEP may cross the learner's DRAIN: it is legal in DRAINING
and goes unanswered. Anything may cross a BYE or a REFUSED: whoever sent one is CLOSED and reads no further, so that
what still arrives is never shown to its machine. Every other pair of messages that can cross is legal in either order.

::

    OPENING --hello--> GREETED --welcome--> ACTIVE --drain--> DRAINING
                          |                    |                 |
                       refused             bye (either)      bye (either)
                          v                    v                 v
                        CLOSED               CLOSED            CLOSED
"""

from __future__ import annotations

from enum import Enum

from aioseed.errors import ProtocolError


class Side(Enum):
    """Name the two ends of a session."""

    ACTOR = "actor"
    LEARNER = "learner"


class State(Enum):
    """Name the phases of a session."""

    OPENING = "opening"  # the channel is open, nothing was said
    GREETED = "greeted"  # HELLO was sent; the learner may be compiling
    ACTIVE = "active"  # slots are leased, steps flow
    DRAINING = "draining"  # no further step will be answered; what is under way may still arrive
    CLOSED = "closed"  # nothing may be said any more


_BOTH = (Side.ACTOR, Side.LEARNER)

_TABLE: dict[tuple[State, Side, str], State] = {
    (State.OPENING, Side.ACTOR, "hello"): State.GREETED,
    (State.GREETED, Side.LEARNER, "starting"): State.GREETED,
    (State.GREETED, Side.LEARNER, "welcome"): State.ACTIVE,
    (State.GREETED, Side.LEARNER, "refused"): State.CLOSED,
    (State.ACTIVE, Side.ACTOR, "step"): State.ACTIVE,
    (State.ACTIVE, Side.LEARNER, "action"): State.ACTIVE,
    (State.ACTIVE, Side.LEARNER, "lease"): State.ACTIVE,
    (State.ACTIVE, Side.LEARNER, "revoke"): State.ACTIVE,
    (State.ACTIVE, Side.LEARNER, "drain"): State.DRAINING,
    # A step that crossed the DRAIN on the road is legal; it is not answered.
    (State.DRAINING, Side.ACTOR, "step"): State.DRAINING,
    (State.DRAINING, Side.LEARNER, "action"): State.DRAINING,
    # A malformed HELLO is refused before it counts as one.
    (State.OPENING, Side.LEARNER, "refused"): State.CLOSED,
    **{
        (state, side, kind): state
        for state in (State.GREETED, State.ACTIVE, State.DRAINING)
        for side in _BOTH
        for kind in ("ping", "pong", "error")
    },
    **{
        (state, side, "bye"): State.CLOSED
        for state in (State.OPENING, State.GREETED, State.ACTIVE, State.DRAINING)
        for side in _BOTH
    },
}


class SessionMachine:
    """Follow one session and refuse what may not be said now.

    Once `state` is CLOSED the owner stops reading: messages that crossed the last one are dropped unseen.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.state = State.OPENING
        self._other = Side.LEARNER if side is Side.ACTOR else Side.ACTOR

    def sent(self, kind: str) -> None:
        """Note a message of ours.

        Raises:
            RuntimeError: We may not say this now; a defect of this program.
        """
        after = _TABLE.get((self.state, self.side, kind))
        if after is None:
            raise RuntimeError(f"a {self.side.value} may not send {kind} while {self.state.value}")
        self.state = after

    def received(self, kind: str) -> None:
        """Note a message of the peer.

        Raises:
            ProtocolError: The peer may not say this now.
        """
        after = _TABLE.get((self.state, self._other, kind))
        if after is None:
            raise ProtocolError("unexpected_message", f"{kind} is not legal while the session is {self.state.value}")
        self.state = after

    def may_send(self, kind: str) -> bool:
        """Return True when `sent(kind)` would be accepted now."""
        return (self.state, self.side, kind) in _TABLE
