"""The shell around serving: channels in, sessions with leases, batches to inference and actions back.

Every await of the room is here. What is decided (may this HELLO join, does this row apply, does the batch close) is
decided in the synchronous modules beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from aioseed.errors import AioseedError, ChannelClosed, ProtocolError, RefusedError
from aioseed.serving.allowance import check_environments, count_message, message_bucket
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract, contract_of, judge
from aioseed.serving.inference import Leased, Released
from aioseed.serving.intake import ClosedBatch, Intake
from aioseed.serving.meters import Meters
from aioseed.serving.session import Session
from aioseed.serving.slots import SlotTable
from aioseed.telemetry.counters import Metrics
from aioseed.transport.channel import Channel
from aioseed.wire.columns import STEP_TYPE
from aioseed.wire.messages import (
    CONTROL_BYTE,
    Bye,
    ControlMessage,
    Drain,
    Error,
    Hello,
    Lease,
    Ping,
    Pong,
    RefusalCode,
    Refused,
    Revoke,
    Starting,
    Welcome,
    clip,
    decode_control,
)
from aioseed.wire.session import State

log = logging.getLogger("aioseed.serving")

_STARTING_EVERY_S = 2.0
LEAVE_S = 1.0
"""Longest wait for an actor to close its channel after our last word."""
_SAME_CLOCK_S = 1.0


class RunFacts(NamedTuple):
    """Tell actors about the run they join."""

    run_id: str
    library: str
    seed: int
    lockstep_environments: int  # N in lockstep mode, else 0
    max_message_bytes: int


class Serving(NamedTuple):
    """Join the parts that exist once the specs are known and everything is compiled."""

    contract: Contract
    table: SlotTable
    intake: Intake
    to_inference: Callable[[Leased | Released], None]
    greeted: Callable[[Hello], None] = lambda hello: None  # told about each HELLO that may join


class Server:
    """Serve the sessions of a run.

    `handle` is given to every listener, over whatever transport. Until `open` is called, actors wait with STARTING
    messages; the first HELLO is kept in `first_hello`, from which a learner without an environment of its own takes the
    specs.

    Thread: the event loop alone, but for `answer_from`, which inference calls.
    """

    def __init__(self, config: ServingConfig, facts: RunFacts, metrics: Metrics) -> None:
        self.first_hello: asyncio.Future[Contract] = asyncio.get_running_loop().create_future()
        self._config = config
        self._facts = facts
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._serving: Serving | None = None
        self._opened = asyncio.Event()
        self._sessions: dict[int, Session] = {}
        self._numbers = 0
        self._bye: Bye | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._poll_due = False
        self._time = _clock_of(self._loop)
        self._meters = Meters(metrics)

    @property
    def sessions(self) -> int:
        """Return the number of sessions that hold or held slots and are still connected."""
        return sum(1 for session in self._sessions.values() if session.slots.size)

    @property
    def environments(self) -> int:
        """Return the number of leased slots."""
        return self._serving.table.leased if self._serving is not None else 0

    def open(self, serving: Serving) -> None:
        """Begin to welcome actors: everything is compiled."""
        self._serving = serving
        self._opened.set()

    async def handle(self, channel: Channel) -> None:
        """Run one session from HELLO to its end. Safe to cancel: its leases end and its rows are accounted for.

        A failure of the session ends the session, never the server; what the actor did wrong it is told.
        """
        self._numbers += 1
        now_s = self._time()
        session = Session(self._numbers, channel, now_s, message_bucket(self._config.messages_per_s, now_s))
        self._sessions[session.number] = session
        try:
            serving = await self._greet(session)
            await self._converse(session, serving)
            await self._take_leave(session)
        except ChannelClosed:
            self._metrics.counter(ChannelClosed.counter).add()
        except RefusedError as refusal:
            self._metrics.counter(f"serving/refused_{refusal.code}").add()
            ends = refusal.code in (RefusalCode.DRAINING, RefusalCode.RUN_OVER)
            level = logging.INFO if ends else logging.WARNING
            log.log(level, "refused actor %s at %s: %s", clip(session.actor_id), clip(channel.peer), refusal)
            session.tell(_refused(refusal))
            await channel.close("refused")
        except ProtocolError as error:
            self._metrics.counter(ProtocolError.counter).add()
            log.warning("closed session of %s at %s: %s", clip(session.actor_id), clip(channel.peer), error)
            session.tell(Error(code=error.code, message=clip(str(error))))
            session.tell(Bye(code="protocol", reason=clip(str(error))))
            await self._take_leave(session)
            await channel.close("protocol error")
        finally:
            session.ended.set()
            del self._sessions[session.number]
            self._end_all_leases(session)

    def answer_from(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        """Hand the actions of a batch to the event loop, which sends them. Thread: any."""
        self._loop.call_soon_threadsafe(self._answer, batch, actions, row_bytes)

    async def watch(self) -> None:
        """Ping the sessions, suspend the silent ones and revoke overdue slots, until cancelled."""
        every_s = min(1.0, self._config.ping_interval_s / 2)
        while True:
            await asyncio.sleep(every_s)
            now_s = self._time()
            for session in list(self._sessions.values()):
                if session.machine.state is State.ACTIVE:
                    await self._check_alive(session, now_s)
            if self._serving is not None and not self._facts.lockstep_environments:
                self._revoke_overdue(self._serving, now_s)

    async def drain(self, *, run_over: bool, reason: str) -> None:
        """Tell every actor that the run is over or the learner goes down, and close the channels.

        Actors have a second to close them by themselves. Later HELLOs are refused. Idempotent. Safe to cancel.
        """
        self._bye = Bye(code="run_over" if run_over else "shutdown", reason=reason)
        if not self.first_hello.done():
            self.first_hello.cancel()
        self._opened.set()
        sessions = list(self._sessions.values())
        for session in sessions:
            session.tell(Drain(reason=reason))
            session.tell(self._bye)
        if sessions:
            await asyncio.wait([asyncio.ensure_future(session.ended.wait()) for session in sessions], timeout=LEAVE_S)
        await asyncio.gather(*(session.channel.close(reason) for session in sessions))

    # -- one session ---------------------------------------------------------------------------------------------------

    async def _greet(self, session: Session) -> Serving:
        hello = await self._read_hello(session)
        session.actor_id = hello.actor_id
        session.acknowledged_rows = hello.acknowledged_rows
        if not self.first_hello.done():
            self.first_hello.set_result(contract_of(hello, frozenset({"train", "evaluate"})))
        serving = await self._wait_until_open(session)
        judge(hello, serving.contract, self._facts.max_message_bytes)
        serving.greeted(hello)
        self._lease(session, serving, hello)
        return serving

    async def _read_hello(self, session: Session) -> Hello:
        try:
            async with asyncio.timeout(self._config.hello_timeout_s):
                payload = await session.channel.receive()
        except TimeoutError:
            raise RefusedError(RefusalCode.HELLO, "no HELLO came in time", retry=True) from None
        if payload[:1] != b"{":
            raise RefusedError(RefusalCode.HELLO, "the first message must be a HELLO")
        try:
            message = decode_control(payload)
        except ProtocolError as error:
            raise RefusedError(RefusalCode.HELLO, clip(str(error))) from error
        if not isinstance(message, Hello):
            raise RefusedError(RefusalCode.HELLO, "the first message must be a HELLO")
        session.machine.received("hello")
        return message

    async def _wait_until_open(self, session: Session) -> Serving:
        while not self._opened.is_set():
            session.tell(Starting(message="the learner is compiling"))
            try:
                async with asyncio.timeout(_STARTING_EVERY_S):
                    await self._opened.wait()
            except TimeoutError:
                continue
        if self._bye is not None or self._serving is None:
            over = self._bye is not None and self._bye.code == "run_over"
            code = RefusalCode.RUN_OVER if over else RefusalCode.DRAINING
            raise RefusedError(code, "the run is over" if over else "the learner is going down", retry=not over)
        return self._serving

    def _lease(self, session: Session, serving: Serving, hello: Hello) -> None:
        check_environments(session, self._sessions.values(), hello.environments)
        session.evaluation = hello.role == "evaluate"
        first_slot = None
        if self._facts.lockstep_environments:
            first_slot = (hello.actor_index or 0) * hello.environments
        slots = serving.table.lease(
            session.number,
            hello.environments,
            self._time(),
            evaluation=session.evaluation,
            first_slot=first_slot,
        )
        if slots is None:
            free = serving.table.capacity - serving.table.leased
            raise RefusedError(
                RefusalCode.CAPACITY,
                f"{hello.environments} environments were asked for, {free} slots are free (serving.max_environments)",
                field="environments",
                ours=str(free),
                theirs=str(hello.environments),
                retry=True,
            )
        session.slots = slots.astype(np.int64)
        deadline_s = min(self._config.step_deadline_s, hello.step_deadline_s)
        serving.table.step_deadline_s[session.slots] = deadline_s
        serving.to_inference(Leased(session.slots, session.evaluation))
        session.tell(
            Welcome(
                library=self._facts.library,
                run_id=self._facts.run_id,
                slots=slots.tolist(),
                epochs=serving.table.epoch[session.slots].tolist(),
                max_step_rows=serving.intake.limits.max_rows,
                max_message_bytes=self._facts.max_message_bytes,
                step_deadline_s=deadline_s,
                ping_interval_s=self._config.ping_interval_s,
                ping_timeout_s=self._config.ping_timeout_s,
                resume_token=secrets.token_urlsafe(16),
                seed=self._facts.seed,
            )
        )
        log.info("actor %s joined with %d environments", clip(session.actor_id), slots.size)

    async def _converse(self, session: Session, serving: Serving) -> None:
        if not session.is_over:
            await session.channel.receive_each(partial(self._hear, session, serving.intake))

    def _hear(self, session: Session, intake: Intake, payload: bytes) -> bool:
        """Take one message in and say whether the session goes on.

        Raises:
            ProtocolError: The message is not one that this session may send.
        """
        now_s = session.last_heard_s = self._time()
        kind = payload[0] if payload else -1
        state = session.machine.state
        if kind == STEP_TYPE and state is State.ACTIVE:
            if session.suspended:
                self._rejoin(session)  # and the step, which is of the old epochs, is refused
            error = intake.take(session, payload, now_s)
            if error is not None:
                self._refuse_rows(session, error)
            self._poll_soon(intake)
        elif state is State.CLOSED:
            return False  # it crossed our BYE
        elif kind == STEP_TYPE:
            session.machine.received("step")  # legal while draining, then without an answer
        elif kind == CONTROL_BYTE:
            count_message(session, now_s)
            self._control(session, payload)
        else:
            count_message(session, now_s)
            self._metrics.counter(ProtocolError.counter).add()
            session.tell(Error(code="unknown_message", message=f"message type {kind} is not known here"))
        return not session.is_over

    async def _take_leave(self, session: Session) -> None:
        """End the leases, then read on for a while, until the actor has heard our last word and closes the channel.

        A step that meets a closed call makes gRPC throw away what the actor has not read yet, our BYE with it.
        """
        self._end_all_leases(session)
        with contextlib.suppress(ChannelClosed, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                while True:
                    await session.channel.receive()

    def _control(self, session: Session, payload: bytes) -> None:
        try:
            message: ControlMessage = decode_control(payload)
        except ProtocolError as error:
            if error.fatal:
                raise
            session.tell(Error(code=error.code, message=clip(str(error))))
            return
        session.machine.received(message.type)
        if isinstance(message, Ping):
            session.tell(Pong(number=message.number))
        elif isinstance(message, Bye):
            log.info("actor %s left: %s %s", clip(session.actor_id), message.code, clip(message.reason))
        elif isinstance(message, Error):
            log.warning("actor %s reports %s: %s", clip(session.actor_id), clip(message.code), clip(message.message))

    def _refuse_rows(self, session: Session, error: Error) -> None:
        self._metrics.counter("serving/refused_steps").add()
        for row in error.rows:
            self._metrics.counter(f"serving/refused_rows_{row.code}").add()
        session.tell(error)
        if session.lost.size and not session.suspended:
            refused = np.array([row.slot for row in error.rows], np.int64)
            self._give_again(session, np.intersect1d(session.lost, refused))

    # -- leases that end and begin again

    async def _check_alive(self, session: Session, now_s: float) -> None:
        silent_s = now_s - session.last_heard_s
        if silent_s > self._config.ping_interval_s + self._config.ping_timeout_s + self._config.suspended_s:
            session.tell(Bye(code="unresponsive", reason="silent for too long"))
            await session.channel.close("silent for too long")
        elif session.suspended and silent_s <= self._config.ping_interval_s + self._config.ping_timeout_s:
            self._rejoin(session)  # it is awake, and seems to have had no step under way that would have told so
        elif silent_s > self._config.ping_interval_s + self._config.ping_timeout_s and not session.suspended:
            # The channel stays open: a frozen actor that wakes finds its epochs stale and joins anew over it.
            log.warning("actor %s is silent for %.0f s; its slots are revoked", clip(session.actor_id), silent_s)
            self._metrics.counter("serving/suspended").add()
            session.suspended = True
            lost = session.held
            self._end_leases(session, lost, "lease_ended")
            session.lost = np.union1d(session.lost, lost)
        elif now_s - session.last_ping_s >= self._config.ping_interval_s:
            session.last_ping_s = now_s
            session.pings += 1
            session.tell(Ping(number=session.pings))

    def _revoke_overdue(self, serving: Serving, now_s: float) -> None:
        overdue = serving.table.overdue(now_s)
        for session in list(self._sessions.values()) if overdue.size else ():
            slots = np.intersect1d(session.held, overdue)
            if slots.size:
                log.warning("%d environments of %s missed their step deadline", slots.size, clip(session.actor_id))
                self._metrics.counter("serving/step_deadlines_missed").add(int(slots.size))
                epochs = serving.table.epoch[slots].tolist()
                self._end_leases(session, slots, "lease_ended")
                session.lost = np.union1d(session.lost, slots)
                session.tell(Revoke(slots=slots.tolist(), epochs=epochs, reason="the step deadline was missed"))

    def _rejoin(self, session: Session) -> None:
        """Give a session that woke up its slots again, under new epochs."""
        serving = self._serving
        if serving is None:
            return
        session.suspended = False
        epochs = serving.table.epoch[session.lost].tolist()
        session.tell(Revoke(slots=session.lost.tolist(), epochs=epochs, reason="the actor was silent for too long"))
        self._give_again(session, session.lost)

    def _give_again(self, session: Session, slots: np.ndarray) -> None:
        serving = self._serving
        if serving is None or not slots.size:
            return
        if (serving.table.owner[slots] >= 0).any():
            session.tell(Bye(code="replaced", reason="the slots were leased to another actor; connect again"))
            return
        serving.table.renew(slots, session.number, self._time())
        session.lost = np.setdiff1d(session.lost, slots)
        serving.to_inference(Leased(slots, session.evaluation))
        session.tell(Lease(slots=slots.tolist(), epochs=serving.table.epoch[slots].tolist()))

    def _end_all_leases(self, session: Session) -> None:
        held, session.slots = session.held, session.slots[:0]
        self._end_leases(session, held, "shutdown" if self._bye is not None else "lease_ended")

    def _end_leases(self, session: Session, slots: np.ndarray, reason: str) -> None:
        if self._serving is None or not slots.size:
            return
        now_s = self._time()
        self._serving.intake.forget(session, slots, now_s)
        self._serving.to_inference(Released(slots, reason))
        self._poll(self._serving.intake, now_s)

    # -- batches

    def _poll_soon(self, intake: Intake) -> None:
        """Poll once for all messages of this turn of the loop: they arrived together and may share a batch."""
        if not self._poll_due:
            self._poll_due = True
            self._loop.call_soon(self._poll_turn, intake)

    def _poll_turn(self, intake: Intake) -> None:
        self._poll_due = False
        self._poll(intake, self._time())

    def _poll(self, intake: Intake, now_s: float) -> None:
        intake.poll(now_s)
        if self._timer is None and (due_s := intake.deadline_at_s()) is not None:
            self._timer = self._loop.call_at(due_s, self._deadline, intake)

    def _deadline(self, intake: Intake) -> None:
        self._timer = None
        now_s, due_s = self._time(), intake.deadline_at_s()
        if due_s is not None and due_s > now_s:
            self._timer = self._loop.call_at(due_s, self._deadline, intake)
        else:
            self._poll(intake, now_s)

    def _answer(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        if self._serving is None:
            raise AioseedError("a batch came back before serving was open")
        now_s = self._time()
        self._serving.intake.answer(batch, actions, row_bytes, now_s)
        self._meters.answered(batch, now_s)
        self._poll(self._serving.intake, now_s)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a clock that agrees with the loop's timers and measures microseconds.

    uvloop's own is the monotonic clock cut to milliseconds and read once a turn; a simulation's is another one.
    """
    return time.monotonic if abs(loop.time() - time.monotonic()) < _SAME_CLOCK_S else loop.time


def _refused(refusal: RefusedError) -> Refused:
    return Refused(
        code=refusal.code,
        message=clip(str(refusal), 500),
        field=clip(refusal.field),
        ours=clip(refusal.ours),
        theirs=clip(refusal.theirs),
        retry=refusal.retry,
    )
