"""The shell around serving: channels in, sessions with leases, batches to inference and actions back.

Every await of the room is here. What is decided (may this HELLO join, does this row apply, does the batch close) is
decided in the synchronous modules beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from aioseed.errors import AioseedError, ChannelClosed, ProtocolError, RefusedError, UsageError
from aioseed.serving.allowance import message_bucket
from aioseed.serving.batching import Batching
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract, contract_of, judge, refused
from aioseed.serving.intake import ClosedBatch, Intake, PlacedStep
from aioseed.serving.leases import ANOTHER_START, Granted, Leases, bad_token
from aioseed.serving.meters import Meters
from aioseed.serving.session import Afar, Session, seen_from_here
from aioseed.serving.slots import SlotTable
from aioseed.serving.thread import Leased, Released
from aioseed.telemetry.counters import Metrics
from aioseed.transport.channel import Channel, Place
from aioseed.types import Payload
from aioseed.wire.columns import STEP_TYPE
from aioseed.wire.messages import (
    CONTROL_BYTE,
    Bye,
    ControlMessage,
    Drain,
    Error,
    Hello,
    Ping,
    Pong,
    RefusalCode,
    Starting,
    Welcome,
    clip,
    decode_control,
)
from aioseed.wire.packing import DEFLATE, PACKED_STEP_TYPE
from aioseed.wire.session import State

log = logging.getLogger("aioseed.serving")

_STARTING_EVERY_S = 2.0
LEAVE_S = 1.0
"""Longest wait for an actor to close its channel after our last word."""
_STEP = bytes([STEP_TYPE])
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


class _Opened(NamedTuple):
    contract: Contract
    table: SlotTable
    intake: Intake
    greeted: Callable[[Hello], None]
    leases: Leases
    batching: Batching


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
        self._opened: _Opened | None = None
        self._ready = asyncio.Event()  # everything is compiled, or the learner goes down before
        self._admission = asyncio.Lock()
        self._sessions: dict[int, Session] = {}
        self._closings: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._bye: Bye | None = None
        self._time = _clock_of(self._loop)
        self._round_trips_ms = metrics.quantiles("serving/round_trip_ms", low=1e-3, high=1e5)

    @property
    def sessions(self) -> int:
        """Return the number of sessions that hold or held slots and are still connected."""
        return sum(1 for session in self._sessions.values() if session.slots.size)

    @property
    def environments(self) -> int:
        """Return the number of leased slots, those of actors that are away for a moment included."""
        return self._opened.table.leased if self._opened is not None else 0

    @property
    def afar(self) -> Afar:
        """Return how far the actors' environments are, and how busy."""
        return seen_from_here(self._sessions.values())

    def open(self, serving: Serving) -> None:
        """Begin to welcome actors: everything is compiled."""
        contract, table, intake, to_inference, greeted = serving
        batching = Batching(self._loop, intake, Meters(self._metrics), self._time, self._answered)
        lockstep = self._facts.lockstep_environments
        leases = Leases(self._config, table, intake, to_inference, batching.poll, self._metrics, lockstep=lockstep)
        self._opened = _Opened(contract, table, intake, greeted, leases, batching)
        self._ready.set()

    async def handle(self, channel: Channel) -> None:
        """Run one session from HELLO to its end. Safe to cancel: its leases end and its rows are accounted for.

        A failure of the session ends the session, never the server; what the actor did wrong it is told.
        """
        self._numbers += 1
        now_s = self._time()
        session = Session(self._numbers, channel, now_s, message_bucket(self._config.messages_per_s, now_s))
        self._sessions[session.number] = session
        broke_off = False
        try:
            opened = await self._greet(session)
            await self._converse(session, opened)
            await self._take_leave(session)
        except ChannelClosed:
            self._metrics.counter(ChannelClosed.counter).add()
            broke_off = True
        except RefusedError as refusal:
            self._metrics.counter(f"serving/refused_{refusal.code}").add()
            ends = refusal.code in (RefusalCode.DRAINING, RefusalCode.RUN_OVER)
            level = logging.INFO if ends else logging.WARNING
            log.log(level, "refused actor %s at %s: %s", clip(session.actor_id), clip(channel.peer), refusal)
            session.tell(refused(refusal))
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
            if self._opened is not None:
                part = self._opened.leases.park if broke_off else self._opened.leases.end
                part(session, self._time())

    def answer_from(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        """Hand the actions of a batch to the event loop, which sends them. Thread: any.

        Raises:
            AioseedError: Nothing was served yet.
        """
        if self._opened is None:
            raise AioseedError("a batch came back before serving was open")
        self._opened.batching.answer_from(batch, actions, row_bytes)

    def expel_from(self, slots: np.ndarray, epochs: np.ndarray) -> None:
        """Hand slots that sent what is not finite to the event loop, which ends their leases. Thread: any.

        Their batch is answered later than that: an actor that had its action would send the next row of a slot whose
        unroll is gone.
        """
        if self._opened is not None:
            self._opened.batching.hold_back()
        self._loop.call_soon_threadsafe(self._expel, slots, epochs)

    async def watch(self) -> None:
        """Ping the sessions, note the silent ones, free what nobody came back for and revoke overdue slots.

        Goes on until it is cancelled. After the process or its loop stood still it does so one turn later: what actors
        sent meanwhile is still to be read.
        """
        every_s = min(0.5, self._config.ping_interval_s / 2)
        while True:
            asleep_s = self._time()
            await asyncio.sleep(every_s)
            if self._opened is not None and self._time() - asleep_s <= 2 * every_s:
                for session in self._opened.leases.tend(list(self._sessions.values()), self._time()):
                    self._close_soon(session, "silent for too long")

    async def drain(self, *, run_over: bool, reason: str) -> None:
        """Tell every actor that the run is over or the learner goes down, and close the channels.

        Actors have a second to close them by themselves. Later HELLOs are refused. Idempotent. Safe to cancel.
        """
        self._bye = Bye(code="run_over" if run_over else "shutdown", reason=reason)
        if not self.first_hello.done():
            self.first_hello.cancel()
        self._ready.set()
        if self._opened is not None:
            self._opened.leases.closing = True
            self._opened.leases.end_parked(self._time())
        sessions = list(self._sessions.values())
        for session in sessions:
            session.tell(Drain(reason=reason))
            session.tell(self._bye)
        if sessions:
            await asyncio.wait([asyncio.ensure_future(session.ended.wait()) for session in sessions], timeout=LEAVE_S)
        await asyncio.gather(*(session.channel.close(reason) for session in sessions), *self._closings)

    def close(self) -> None:
        """Let go of what serves, once inference has ended: whoever still knows this server holds none of its memory.

        Inference answers through the server, which gives it its batches. Left so, policy, recurrent states and columns
        would stay until Python looks for cycles, which it seldom does where JAX is loaded.
        """
        self._opened = None

    # -- one session ---------------------------------------------------------------------------------------------------

    async def _greet(self, session: Session) -> _Opened:
        hello = await self._read_hello(session)
        session.actor_id = hello.actor_id
        if not self.first_hello.done():
            self.first_hello.set_result(contract_of(hello, frozenset({"train", "evaluate"})))
        if hello.resume_token is not None and not self._ready.is_set():
            # This start gave none yet. Told now, a herd asks anew while everything is compiled, not when it is done.
            raise bad_token(ANOTHER_START)
        opened = await self._wait_until_open(session)
        # One HELLO a turn of the loop: a herd that comes back at once holds up no step of those who are here.
        async with self._admission:
            judge(hello, opened.contract, self._facts.max_message_bytes)
            opened.greeted(hello)
            granted = opened.leases.grant(session, hello, self._time())
            self._welcome(session, opened, granted)
            await asyncio.sleep(0)
        return opened

    def _welcome(self, session: Session, opened: _Opened, granted: Granted) -> None:
        if (former := granted.replaced) is not None and former.number in self._sessions:
            former.tell(Bye(code="replaced", reason="the actor has connected anew"))
            self._close_soon(former, "replaced")
        # An actor says nothing between its HELLO and this, however long the learner compiles.
        session.last_heard_s = self._time()
        welcome = Welcome(
            library=self._facts.library,
            run_id=self._facts.run_id,
            slots=session.slots.tolist(),
            epochs=opened.table.epoch[session.slots].tolist(),
            max_step_rows=opened.intake.limits.max_rows,
            max_message_bytes=self._facts.max_message_bytes,
            step_deadline_s=granted.step_deadline_s,
            ping_interval_s=self._config.ping_interval_s,
            ping_timeout_s=self._config.ping_timeout_s,
            resume_token=granted.resume_token,
            seed=self._facts.seed,
            packings=[DEFLATE],
        )
        try:
            session.tell(welcome)
        except UsageError as error:
            raise RefusedError(
                RefusalCode.SIZE,
                f"{session.slots.size} environments are too many for one actor: {error}; start several",
                field="environments",
            ) from error

    async def _read_hello(self, session: Session) -> Hello:
        try:
            async with asyncio.timeout(self._config.hello_timeout_s):
                payload = await session.channel.receive()
        except TimeoutError:
            raise RefusedError(RefusalCode.HELLO, "no HELLO came in time", retry=True) from None
        if session.is_over:  # it crossed our BYE, which is to be heard
            await self._take_leave(session)
            raise ChannelClosed("the learner goes down", clean=True)
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

    async def _wait_until_open(self, session: Session) -> _Opened:
        while not self._ready.is_set():
            session.tell(Starting(message="the learner is compiling"))
            try:
                async with asyncio.timeout(_STARTING_EVERY_S):
                    await self._ready.wait()
            except TimeoutError:
                continue
        if self._bye is not None or self._opened is None:
            over = self._bye is not None and self._bye.code == "run_over"
            code = RefusalCode.RUN_OVER if over else RefusalCode.DRAINING
            raise RefusedError(code, "the run is over" if over else "the learner is going down", retry=not over)
        return self._opened

    async def _converse(self, session: Session, opened: _Opened) -> None:
        if not session.is_over:
            await session.channel.receive_each(
                partial(self._hear, session, opened), partial(self._place, session, opened)
            )

    def _hear(self, session: Session, opened: _Opened, payload: Payload) -> bool:
        """Take one message in and say whether the session goes on.

        Raises:
            ProtocolError: The message is not one that this session may send.
        """
        now_s = session.last_heard_s = self._time()
        kind = payload[0] if payload else -1
        state = session.machine.state
        if (kind == STEP_TYPE or kind == PACKED_STEP_TYPE) and state is State.ACTIVE:
            if session.suspended:
                opened.leases.wake(session, now_s)  # and the step, which is of the old epochs, is refused
            if kind == STEP_TYPE:
                error = opened.intake.take(session, payload, now_s)
            else:
                error = opened.intake.take_packed(session, payload, now_s, self._facts.max_message_bytes)
            opened.batching.poll_soon()
            if error is None:
                return True
            session.count_vain(now_s)
            self._refuse_rows(session, error, opened.leases)
        elif state is State.CLOSED:
            return False  # it crossed our BYE
        elif kind in (STEP_TYPE, PACKED_STEP_TYPE):
            session.machine.received("step")  # legal while draining, then without an answer
        elif kind == CONTROL_BYTE:
            session.count(now_s)
            self._control(session, bytes(payload))
        else:
            session.count(now_s)
            self._metrics.counter(ProtocolError.counter).add()
            session.tell(Error(code="unknown_message", message=f"message type {kind} is not known here"))
        return not session.is_over

    def _place(self, session: Session, opened: _Opened, size_bytes: int, beginning: memoryview) -> Place | None:
        """Return where the observations of a STEP go, if it is one that is sure to be taken."""
        if beginning[:1] != _STEP or session.machine.state is not State.ACTIVE or session.suspended:
            return None
        placed = opened.intake.place(session, size_bytes, beginning)
        return None if placed is None else Place(placed.end.memory, partial(self._hear_placed, session, opened, placed))

    def _hear_placed(self, session: Session, opened: _Opened, placed: PlacedStep) -> bool:
        now_s = session.last_heard_s = self._time()
        opened.intake.take_placed(placed, now_s)
        opened.batching.poll_soon()
        return True

    async def _take_leave(self, session: Session) -> None:
        """End the leases, then read on for a while, until the actor has heard our last word and closes the channel.

        A step that meets a closed call makes gRPC throw away what the actor has not read yet, our BYE with it.
        """
        if self._opened is not None:
            self._opened.leases.end(session, self._time())
        with contextlib.suppress(ChannelClosed, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                while True:
                    await session.channel.receive()

    def _answered(self) -> None:
        if self._opened is not None:
            self._opened.leases.answered()

    def _expel(self, slots: np.ndarray, epochs: np.ndarray) -> None:
        if self._opened is not None:
            self._opened.leases.expel(self._sessions.values(), slots, epochs, self._time())

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
        elif isinstance(message, Pong):
            round_trip_s = session.ponged(message, self._time())
            if round_trip_s is not None:
                self._round_trips_ms.observe(1000.0 * round_trip_s)
        elif isinstance(message, Bye):
            log.info("actor %s left: %s %s", clip(session.actor_id), message.code, clip(message.reason))
        elif isinstance(message, Error):
            log.warning("actor %s reports %s: %s", clip(session.actor_id), clip(message.code), clip(message.message))

    def _refuse_rows(self, session: Session, error: Error, leases: Leases) -> None:
        self._metrics.counter("serving/refused_steps").add()
        for row in error.rows:
            self._metrics.counter(f"serving/refused_rows_{row.code}").add()
        session.tell(error)
        leases.give_back(session, np.array([row.slot for row in error.rows], np.int64), self._time())

    def _close_soon(self, session: Session, reason: str) -> None:
        """Close a channel whose peer may be gone, without waiting for it."""
        task = self._loop.create_task(session.channel.close(reason), name=f"closing {clip(session.channel.peer)}")
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a clock that agrees with the loop's timers and measures microseconds.

    uvloop's own is the monotonic clock cut to milliseconds and read once a turn; a simulation's is another one.
    """
    return time.monotonic if abs(loop.time() - time.monotonic()) < _SAME_CLOCK_S else loop.time
