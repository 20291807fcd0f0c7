"""One actor's session as the learner sees it: its channel, its slots and what it owes an answer."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from aioseed.errors import ChannelClosed, ProtocolError
from aioseed.serving.groups import CarefulReply, KnownGroup
from aioseed.transport.channel import Channel
from aioseed.transport.guard import Bucket
from aioseed.wire.messages import ControlMessage, Ping, Pong
from aioseed.wire.session import SessionMachine, Side, State

_NO_SLOTS = np.zeros(0, np.int64)
VAIN_STEPS_PER_S = 1000
"""Repeated or refused STEPs, each of which takes the event loop some 50 microseconds; an honest actor sends one a group
when it comes back, and as many as its environments are begun anew."""

ROUND_TRIPS = 8
"""PINGs, one every `serving.ping_interval_s`, of which the one that met the fewest queues tells how far an actor is."""


class Session:
    """Hold the state of one session. Thread: the event loop alone."""

    def __init__(self, number: int, channel: Channel, now_s: float, messages: Bucket | None = None) -> None:
        self.number = number
        self.channel = channel
        self.messages = messages if messages is not None else Bucket(math.inf, math.inf, now_s)
        self._vain_steps = Bucket(VAIN_STEPS_PER_S, VAIN_STEPS_PER_S, now_s)
        self.machine = SessionMachine(Side.LEARNER)
        self.actor_id = ""
        self.evaluation = False
        self.ended = asyncio.Event()  # nobody reads its channel any more
        self.slots = _NO_SLOTS  # every slot that was given to it and not taken back for good
        self.lost = _NO_SLOTS  # those of `slots` whose lease was revoked while the session lives
        self.resume_token = ""  # with which the actor may go on over another channel
        self.away_since_s: float | None = None  # when it was found silent, or lost its channel, if it did
        self.suspended = False  # silent for longer than the grace: holds no lease, but its channel stays open
        self.sent_nonfinite = False
        self.last_heard_s = now_s
        self.last_ping_s = now_s
        self.pings = 0
        self._round_trips_s: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._stepping_shares: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._pong_due = False
        self.groups: dict[bytes, KnownGroup] = {}
        self.careful: dict[bytes, CarefulReply] = {}

    def answer(self, payload: bytes) -> None:
        """Send one ACTION. Its receiver ends with its channel, so a closed one swallows it."""
        try:
            self.channel.send_nowait(payload)
        except ChannelClosed:
            # The receive loop of this channel meets the same end and does the accounting.
            return

    def ping(self, now_s: float) -> None:
        """Ask the actor for a PONG."""
        self.last_ping_s = now_s
        self.pings += 1
        self._pong_due = True
        self.tell(Ping(number=self.pings))

    def ponged(self, pong: Pong, now_s: float) -> float | None:
        """Return how long the newest PING and its PONG were under way, in seconds; None for another PONG."""
        if pong.number != self.pings or not self._pong_due:
            return None
        self._pong_due = False
        if pong.stepping_share is not None:
            self._stepping_shares.append(pong.stepping_share)
        self._round_trips_s.append(now_s - self.last_ping_s)
        return self._round_trips_s[-1]

    @property
    def round_trip_s(self) -> float:
        """Return the shortest of the last `ROUND_TRIPS` round trips: what the way takes. NaN before the first."""
        return min(self._round_trips_s, default=math.nan)

    @property
    def stepping_share(self) -> float:
        """Return for which share of the time the actor's environments stepped, as it says. NaN while it does not."""
        return sum(self._stepping_shares) / len(self._stepping_shares) if self._stepping_shares else math.nan

    def count(self, now_s: float) -> None:
        """Count a message that is no step.

        Raises:
            ProtocolError: There were too many in a short time.
        """
        if not self.messages.take(1, now_s):
            raise ProtocolError("unexpected_message", "too many messages that are no steps (serving.messages_per_s)")

    def count_vain(self, now_s: float) -> None:
        """Count a STEP that brought nothing: a repeat, or one that was refused.

        Raises:
            ProtocolError: There were too many in a short time.
        """
        if not self._vain_steps.take(1, now_s):
            raise ProtocolError(
                "unexpected_message", f"more than {VAIN_STEPS_PER_S} repeated or refused steps a second"
            )

    def tell(self, message: ControlMessage) -> None:
        """Send a control message that the table allows now; a closed channel swallows it likewise.

        Raises:
            UsageError: It is too large; then it does not count as said.
        """
        if self.machine.may_send(message.type):
            payload = message.encode()
            self.machine.sent(message.type)
            self.answer(payload)

    @property
    def is_over(self) -> bool:
        """Say whether either side has said its last word."""
        return self.machine.state is State.CLOSED

    @property
    def held(self) -> np.ndarray:
        """Return the slots whose lease is alive."""
        return np.setdiff1d(self.slots, self.lost)

    def give_up_slots(self) -> None:
        """Hold nothing any more; what the actor still sends is refused."""
        self.slots = self.lost = _NO_SLOTS
        self.groups.clear()
        self.careful = {}


class Afar(NamedTuple):
    """Tell how far the environments of a learner are, and how busy; NaN while unknown."""

    round_trip_ms: float  # the median
    stepping_share: float  # of the time, the mean


def seen_from_here(sessions: Collection[Session]) -> Afar:
    """Return what PONGs have told of the environments of the `sessions`, one an environment."""
    ways_s = _known([(session.round_trip_s, session.slots.size) for session in sessions])
    shares = _known([(session.stepping_share, session.slots.size) for session in sessions])
    return Afar(
        1000.0 * float(np.median(ways_s)) if ways_s.size else math.nan,
        float(np.mean(shares)) if shares.size else math.nan,
    )


def _known(values: Sequence[tuple[float, int]]) -> np.ndarray:
    return np.concatenate([*(np.full(count, value) for value, count in values if not math.isnan(value)), np.zeros(0)])
