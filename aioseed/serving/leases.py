"""Who holds which slots: leases that are given, kept for an actor that may come back, taken and given again.

Theory of operation. A session holds its slots in one of three ways::

    connected   its channel is open and something was heard within interval + timeout
    away        its channel broke, or nothing was heard for so long; for `resume_grace_s` everything stays as it is:
                slots, epochs, sequence numbers, recurrent states and open unrolls. No batch waits for its rows.
    gone        its leases have ended; the open unrolls are dropped and counted

A HELLO with the resume token of a session that is away, or of one whose channel only seems to live (the actor found the
break first), puts a new session in its place under the same epochs: the episode goes on. The old session holds nothing
from that moment, so whatever its channel still delivers is refused. A token is good once; each WELCOME gives the next.

A silent session that stays silent for longer than the grace loses its slots but keeps its channel for a while, and when
it wakes it is given them again under new epochs.

Decisions only: no await, no clock of its own. Thread: the event loop alone.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from aioseed.errors import RefusedError
from aioseed.serving.allowance import check_environments
from aioseed.serving.config import ServingConfig
from aioseed.serving.intake import Intake
from aioseed.serving.session import Session
from aioseed.serving.slots import NOBODY, SlotTable
from aioseed.serving.thread import Leased, Released
from aioseed.telemetry.counters import Metrics
from aioseed.wire.messages import Bye, Hello, Lease, RefusalCode, Revoke, clip
from aioseed.wire.session import State

log = logging.getLogger("aioseed.serving")

_NO_SLOTS = np.zeros(0, np.int64)
ANOTHER_START = "it is of another start of the learner"


class Granted(NamedTuple):
    """Say what a HELLO was granted: the session's new token and deadline, and the session whose place it took."""

    resume_token: str
    step_deadline_s: float
    replaced: Session | None  # its channel may still be open


class Leases:
    """Keep the leases of a run.

    Args:
        table: The slots.
        intake: Where their rows wait.
        to_inference: Takes what inference must know about leases.
        poll: Called after leases have ended: the open batch may have nobody left to wait for.
        lockstep: Environments in lockstep mode, where an actor's place gives it its slots and nothing is revoked for
            being late; else 0.
    """

    def __init__(
        self,
        config: ServingConfig,
        table: SlotTable,
        intake: Intake,
        to_inference: Callable[[Leased | Released], None],
        poll: Callable[[float], None],
        metrics: Metrics,
        *,
        lockstep: int,
    ) -> None:
        self._config = config
        self._table = table
        self._intake = intake
        self._to_inference = to_inference
        self._poll = poll
        self._metrics = metrics
        self._lockstep = lockstep
        self._by_token: dict[str, Session] = {}
        self._parked: dict[int, Session] = {}  # away without a channel, by number, in the order of their loss
        self._unmarked = _NO_SLOTS  # slots of sessions that are away with rows in a batch: late once it is answered
        self.closing = False  # the learner goes down: nobody is waited for

    # -- sessions that begin

    def grant(self, session: Session, hello: Hello, now_s: float) -> Granted:
        """Give `session` what `hello` asks for: the slots that its token stands for, or new ones.

        Raises:
            RefusedError: The token is not good, or there are not so many slots; nothing has changed.
        """
        session.evaluation = hello.role == "evaluate"
        former = None
        if hello.resume_token is not None:
            former = self._claimed(session, hello, hello.resume_token)
            self._check_allowance(session, former, hello)
            self._take_over(session, former, now_s)
            self._metrics.counter("serving/resumed").add()
            log.info("actor %s goes on with %d environments", clip(session.actor_id), session.slots.size)
        else:
            self._end_former(session, now_s)
            self._check_allowance(session, None, hello)
            self._lease(session, hello, now_s)
            log.info("actor %s joined with %d environments", clip(session.actor_id), session.slots.size)
        deadline_s = min(self._config.step_deadline_s, hello.step_deadline_s)
        self._table.step_deadline_s[session.slots] = deadline_s
        session.resume_token = f"{self._table.generation:x}.{secrets.token_urlsafe(16)}"
        self._by_token[session.resume_token] = session
        return Granted(session.resume_token, deadline_s, former)

    def _check_allowance(self, session: Session, former: Session | None, hello: Hello) -> None:
        others = (other for other in self._by_token.values() if other is not former)
        check_environments(session, others, hello.environments)

    def _claimed(self, session: Session, hello: Hello, token: str) -> Session:
        former = self._by_token.get(token)
        if former is None:
            generation, dot, _ = token.partition(".")
            if not dot:
                why = "it is not one of this learner"
            elif generation != f"{self._table.generation:x}":
                why = ANOTHER_START
            else:
                why = "it was used before, or has expired"
        elif not _same_actor(former, session):
            why = "it is another actor's"
        elif (former.slots.size, former.evaluation) != (hello.environments, hello.role == "evaluate"):
            why = "it stands for other environments"
        else:
            return former
        raise bad_token(why)

    def _take_over(self, session: Session, former: Session, now_s: float) -> None:
        held, missing = former.held, former.lost.size
        fresh = _NO_SLOTS
        if missing:
            leased = self._table.lease(session.number, missing, now_s, evaluation=session.evaluation)
            if leased is None:
                raise self._full(missing)
            fresh = leased.astype(np.int64)
            self._to_inference(Leased(fresh, session.evaluation))
        self._table.transfer(held, session.number, now_s)
        session.slots = np.union1d(held, fresh)
        self._forget(former)
        former.give_up_slots()

    def _end_former(self, session: Session, now_s: float) -> None:
        """End what an actor had that was started again: nobody will come back for it."""
        for former in [*self._parked.values()]:
            if _same_actor(former, session):
                self.end(former, now_s)

    def _lease(self, session: Session, hello: Hello, now_s: float) -> None:
        wanted, first = hello.environments, self._place_of(hello)
        while (
            slots := self._table.lease(session.number, wanted, now_s, evaluation=session.evaluation, first_slot=first)
        ) is None:
            former = self._in_the_way(wanted, first)
            if former is None:
                raise self._full(wanted) if first is None else _no_such_place(hello, first, "another actor has some")
            self.end(former, now_s)
        session.slots = slots.astype(np.int64)
        self._to_inference(Leased(session.slots, session.evaluation))

    def _place_of(self, hello: Hello) -> int | None:
        """Return the first slot of an actor's place in lockstep mode, else None.

        Raises:
            RefusedError: It ends beyond the environments of the run, which a batch has rows for.
        """
        if not self._lockstep:
            return None
        first, capacity = (hello.actor_index or 0) * hello.environments, self._table.capacity
        if first + hello.environments > min(self._lockstep, capacity):
            few = f"{capacity} (serving.max_environments)" if capacity < self._lockstep else str(self._lockstep)
            raise _no_such_place(hello, first, f"this run has {few}, counted from 0", retry=False)
        return first

    def _in_the_way(self, wanted: int, first: int | None) -> Session | None:
        """Return a session that is away and gives way to an actor that is here, the longest away, if that can help."""
        parked = self._parked.values()
        if first is None:
            enough = wanted <= self._table.capacity - self._table.leased + sum(former.held.size for former in parked)
            return next(iter(parked), None) if enough else None
        owners = set(self._table.owner[first : first + wanted].tolist()) - {NOBODY}
        return (
            next((former for former in parked if former.number in owners), None) if owners <= {*self._parked} else None
        )

    def _full(self, wanted: int) -> RefusedError:
        free = self._table.capacity - self._table.leased
        return RefusedError(
            RefusalCode.CAPACITY,
            f"{wanted} environments were asked for, {free} slots are free (serving.max_environments)",
            field="environments",
            ours=str(free),
            theirs=str(wanted),
            retry=True,
        )

    # -- sessions that break off and end

    def park(self, session: Session, now_s: float) -> None:
        """Keep the leases of a session whose channel broke, for an actor that comes back within the grace."""
        held = session.held
        # Neither a suspended session nor one of a learner that goes down: those hold nothing or were told BYE.
        lives = session.machine.state is State.ACTIVE and held.size > 0
        if not lives or not self._config.resume_grace_s:
            self.end(session, now_s)
            return
        log.info("actor %s is away; its %d slots are kept for a while", clip(session.actor_id), held.size)
        self._metrics.counter("serving/parked").add()
        self._parked[session.number] = session
        self._note_away(session, now_s)
        self._poll(now_s)

    def end(self, session: Session, now_s: float) -> None:
        """End every lease of a session for good. Idempotent."""
        held = session.held
        self._forget(session)
        self._end(session, held, "shutdown" if self.closing else "lease_ended", now_s)
        session.give_up_slots()

    def end_parked(self, now_s: float) -> None:
        """End the leases of all sessions that are away without a channel: the learner goes down."""
        for session in [*self._parked.values()]:
            self.end(session, now_s)

    def answered(self) -> None:
        """Expect nothing of those who are away, once their last rows were answered. Called after each batch."""
        if self._unmarked.size:
            self._unmarked = self._table.mark_absent(self._unmarked)

    # -- liveness

    def tend(self, sessions: Collection[Session], now_s: float) -> list[Session]:
        """Ping the connected `sessions`, note the silent ones, revoke what is overdue, and forget who stayed away.

        Returns:
            Sessions that were silent for so long that their channels are to be closed.
        """
        for session in [*self._parked.values()]:
            if self._away_s(session, now_s) > self._config.resume_grace_s:
                log.warning("actor %s did not come back; its slots are free", clip(session.actor_id))
                self._metrics.counter("serving/resume_expired").add()
                self.end(session, now_s)
        active = [session for session in sessions if session.machine.state is State.ACTIVE]
        hopeless = [session for session in active if self._attend(session, now_s)]
        if not self._lockstep:
            self._revoke_overdue(active, now_s)
        return hopeless

    def expel(self, sessions: Collection[Session], slots: np.ndarray, epochs: np.ndarray, now_s: float) -> None:
        """Take `slots` that sent what is not finite from their sessions, and give them again under new epochs.

        Inference has dropped their unrolls. A slot whose epoch is another one meanwhile is left alone.
        """
        slots = slots[self._table.epoch[slots] == epochs]
        self._metrics.counter("serving/nonfinite_rows").add(slots.size)
        for session in (*sessions, *self._parked.values()):
            lost = np.intersect1d(session.held, slots)
            if not lost.size:
                continue
            level = logging.DEBUG if session.sent_nonfinite else logging.WARNING
            session.sent_nonfinite = True
            log.log(level, "environments of %s sent what is not finite; they begin anew", clip(session.actor_id))
            taken = self._table.epoch[lost].tolist()
            self._take(session, lost, now_s)
            session.tell(Revoke(slots=lost.tolist(), epochs=taken, reason="a reward or an observation is not finite"))
            if session.number not in self._parked:
                self._give_again(session, lost, now_s)

    def wake(self, session: Session, now_s: float) -> None:
        """Give a suspended session that woke up its slots again, under new epochs."""
        session.suspended = False
        epochs = self._table.epoch[session.lost].tolist()
        session.tell(Revoke(slots=session.lost.tolist(), epochs=epochs, reason="the actor was silent for too long"))
        self._give_again(session, session.lost, now_s)

    def give_back(self, session: Session, refused: np.ndarray, now_s: float) -> None:
        """Lease those of the `refused` slots again that were revoked: their environments are back."""
        self._give_again(session, np.intersect1d(session.lost, refused), now_s)

    def _attend(self, session: Session, now_s: float) -> bool:
        """Do what the silence of a session asks for; True when there is no hope for it."""
        config = self._config
        silent_s = now_s - session.last_heard_s
        patience_s = config.ping_interval_s + config.ping_timeout_s
        if silent_s > patience_s + config.resume_grace_s + config.suspended_s:
            session.tell(Bye(code="unresponsive", reason="silent for too long"))
            return True
        if silent_s <= patience_s:
            session.away_since_s = None
            if session.suspended:
                self.wake(session, now_s)  # it seems to have had no step under way that would have told so
        elif session.away_since_s is None:
            log.warning("actor %s is silent for %.0f s", clip(session.actor_id), silent_s)
            self._metrics.counter("serving/silent").add()
            self._note_away(session, now_s)
        elif not session.suspended and self._away_s(session, now_s) > config.resume_grace_s:
            self._suspend(session, now_s)
        if now_s - session.last_ping_s >= config.ping_interval_s:
            session.ping(now_s)
        return False

    def _suspend(self, session: Session, now_s: float) -> None:
        """Take the slots of a silent session. A frozen actor that wakes finds its epochs stale and joins anew."""
        log.warning("actor %s stays silent; its slots are revoked", clip(session.actor_id))
        self._metrics.counter("serving/suspended").add()
        session.suspended = True
        self._forget(session)
        self._take(session, session.held, now_s)

    def _revoke_overdue(self, sessions: Collection[Session], now_s: float) -> None:
        self._intake.sync()  # else rows that wait for their batch look as if they had not come
        overdue = self._table.overdue(now_s)
        for session in sessions if overdue.size else ():
            slots = np.intersect1d(session.held, overdue)
            if slots.size:
                log.warning("%d environments of %s missed their step deadline", slots.size, clip(session.actor_id))
                self._metrics.counter("serving/step_deadlines_missed").add(int(slots.size))
                epochs = self._table.epoch[slots].tolist()
                self._take(session, slots, now_s)
                session.tell(Revoke(slots=slots.tolist(), epochs=epochs, reason="the step deadline was missed"))

    def _give_again(self, session: Session, slots: np.ndarray, now_s: float) -> None:
        if not slots.size:
            return
        if (self._table.owner[slots] != NOBODY).any():
            session.tell(Bye(code="replaced", reason="the slots were leased to another actor; connect again"))
            return
        try:
            check_environments(session, self._by_token.values(), slots.size)
        except RefusedError as refusal:
            session.tell(Bye(code="replaced", reason=clip(str(refusal))))
            return
        self._table.renew(slots, session.number, now_s)
        session.lost = np.setdiff1d(session.lost, slots)
        self._by_token[session.resume_token] = session
        self._to_inference(Leased(slots, session.evaluation))
        session.tell(Lease(slots=slots.tolist(), epochs=self._table.epoch[slots].tolist()))

    def _take(self, session: Session, slots: np.ndarray, now_s: float) -> None:
        self._end(session, slots, "lease_ended", now_s)
        session.lost = np.union1d(session.lost, slots)

    def _end(self, session: Session, slots: np.ndarray, reason: str, now_s: float) -> None:
        if slots.size:
            self._intake.forget(session, slots, now_s)
            self._to_inference(Released(slots, reason))
            self._poll(now_s)

    def _note_away(self, session: Session, now_s: float) -> None:
        if session.away_since_s is None or session.away_since_s < session.last_heard_s:
            session.away_since_s = now_s
        self._intake.sync()
        self._unmarked = self._table.mark_absent(np.union1d(self._unmarked, session.held))

    def _away_s(self, session: Session, now_s: float) -> float:
        return 0.0 if session.away_since_s is None else now_s - session.away_since_s

    def _forget(self, session: Session) -> None:
        """Let nobody take the place of a session any more."""
        self._parked.pop(session.number, None)
        self._by_token.pop(session.resume_token, None)


def bad_token(why: str) -> RefusedError:
    """Return the error that refuses a resume token: the actor asks again at once without it."""
    message = f"the resume token is not good: {why}"
    return RefusedError(RefusalCode.RESUME_TOKEN, message, field="resume_token", retry=True)


def _no_such_place(hello: Hello, first: int, why: str, *, retry: bool = True) -> RefusedError:
    index, slots = hello.actor_index or 0, f"{first} to {first + hello.environments - 1}"
    return RefusedError(
        RefusalCode.CAPACITY,
        f"in lockstep an actor of {hello.environments} environments at place {index} (--actor-index) has the slots"
        f" {slots}, and {why}",
        field="actor_index",
        theirs=str(index),
        retry=retry,
    )


def _same_actor(one: Session, other: Session) -> bool:
    """Say whether two sessions are of one actor: a name is easily taken, the token at the door is not."""
    return one.actor_id == other.actor_id and one.channel.credential == other.channel.credential
