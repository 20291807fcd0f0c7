"""One session over one channel: the awaits around `ActorSession`, the workers and the watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from aioseed.actor.crew import Crew
from aioseed.actor.group import Work
from aioseed.actor.session import ActorEvent, ActorSession, End, Outcome
from aioseed.actor.watch import Watch
from aioseed.errors import AioseedError, ChannelClosed, EnvironmentFailed, ProtocolError, TransportError
from aioseed.transport.channel import Channel
from aioseed.types import Payload
from aioseed.wire.messages import Error, Hello, Welcome, clip

CLOSE_S = 3.0
"""Longest wait for a channel to close; transports promise 2 s."""
LAST_WORDS_S = 2.0
"""Longest wait for what the learner said before it ended a channel on which nothing can be sent any more."""


class Conversation:
    """Carry messages between a learner and the workers of this actor until the session ends.

    Thread: the event loop's. Workers report through the loop; what they report after the end goes into their groups.
    """

    def __init__(
        self,
        channel: Channel,
        session: ActorSession,
        crew: Crew,
        watch: Watch,
        on_event: Callable[[ActorEvent], None],
        on_welcome: Callable[[Welcome], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._session = session
        self._crew = crew
        self._watch = watch
        self._on_event = on_event
        self._on_welcome = on_welcome
        self._on_tick = on_tick
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[End] = self._loop.create_future()

    async def run(self, hello: Hello, patience_s: float) -> End:
        """Say HELLO and go on to the end, then close the channel. Call once.

        It is the end as well if nothing but PINGs came after `patience_s`: what is there may be no learner at all. Who
        is told that the learner is starting waits on, for as long as it is heard.

        Safe to cancel: the learner is told, the channel is closed within 3 seconds, workers finish what they have.
        """
        unanswered = self._loop.call_later(patience_s, self._guard, self._expect_answer)
        try:
            end = await self._talk(hello)
        except asyncio.CancelledError:
            self._leave(None)
            raise
        else:
            if not end.may_resume:  # a BYE would end the leases that the next session is to go on with
                self._leave(end.error if end.outcome == "failed" else None)
        finally:
            unanswered.cancel()
            self._crew.listen(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._channel.close()
        return end

    async def _talk(self, hello: Hello) -> End:
        for group in self._session.working:
            self._watch.started(group)
        self._crew.listen(self._report)
        self._guard(lambda: Outcome(sends=[self._session.open(hello)]))
        async with asyncio.TaskGroup() as tasks:
            helpers = tasks.create_task(self._receive()), tasks.create_task(self._tick())
            try:
                await asyncio.wait((self._ended,))
            finally:
                for task in helpers:
                    task.cancel()
        return self._ended.result()

    async def _receive(self) -> None:
        if self._ended.done():
            return
        try:
            await self._channel.receive_each(self._hear)
        except ChannelClosed as closed:
            self._finish(End("retry", closed, may_resume=True))

    def _hear(self, payload: Payload) -> bool:
        self._watch.heard()
        self._guard(partial(self._session.receive, bytes(payload)))
        return not self._ended.done()

    async def _tick(self) -> None:
        while not self._ended.done():
            await asyncio.sleep(self._watch.tick_s)
            self._session.look()
            self._guard(self._check)
            self._on_tick()

    def _expect_answer(self) -> Outcome:
        if not self._session.answers:
            raise ChannelClosed("it took the connection, and did not answer this actor", clean=False)
        return Outcome()

    def _check(self) -> Outcome:
        verdict = self._watch.tick(self._loop.time(), idle=self._session.idle, answers=self._session.answers)
        if verdict.hung is not None:
            raise EnvironmentFailed(
                f"the environments of group {verdict.hung} hung: their step takes longer than"
                f" {self._watch.step_deadline_s:g} s"
            )
        if verdict.dead:
            raise ChannelClosed("it is silent", clean=False)
        if verdict.unheard:
            raise ChannelClosed("it is there, but answers nothing", clean=False)
        if verdict.forgotten:
            return Outcome(end=End("retry", TransportError("it leases no environment of this actor any more")))
        ping = self._session.ping() if verdict.ping else None
        return Outcome(sends=[ping] if ping is not None else [])

    def _report(self, group: int, result: Work | AioseedError) -> None:
        self._watch.finished(group)
        if isinstance(result, AioseedError):
            self._finish(End("failed", result))
        else:
            self._guard(partial(self._session.stepped, group, result))

    def _guard(self, decide: Callable[[], Outcome]) -> None:
        """Do what `decide` says; whatever goes wrong ends the session and is seen by `run`."""
        try:
            self._apply(decide())
        except ChannelClosed as closed:
            self._finish(End("retry", closed, may_resume=True))
        except AioseedError as error:
            self._finish(End("failed", error))
        except Exception as error:
            if not self._ended.done():
                self._crew.listen(None)
                self._ended.set_exception(error)

    def _apply(self, outcome: Outcome) -> None:
        try:
            for payload in outcome.sends:
                self._channel.send_nowait(payload)
        except ChannelClosed as closed:
            # What the learner said before it went, its BYE perhaps, crossed this message and is still to be read.
            self._loop.call_later(LAST_WORDS_S, self._finish, End("retry", closed, may_resume=True))
        for group, _ in outcome.jobs:
            self._watch.started(group)
        self._crew.submit(outcome.jobs)
        for event in outcome.events:
            self._on_event(event)
            if event.kind == "welcomed" and (welcome := self._session.welcome) is not None:
                self._watch.limit_silence(welcome.ping_interval_s, welcome.ping_timeout_s)
                self._watch.limit_step(welcome.step_deadline_s)
                self._on_welcome(welcome)
        if outcome.end is not None:
            self._finish(outcome.end)

    def _finish(self, end: End) -> None:
        if not self._ended.done():
            # At once, not when `run` learns of it: what workers report meanwhile must not be lost between two sessions.
            self._crew.listen(None)
            self._ended.set_result(end)

    def _leave(self, error: AioseedError | None) -> None:
        """Tell the learner how this side ends; it may be gone already."""
        reason = clip(str(error)) if error is not None else ""
        with contextlib.suppress(ChannelClosed):
            if isinstance(error, ProtocolError):
                self._channel.send_nowait(Error(code=error.code, message=reason).encode())
                bye = self._session.leave("protocol", reason)
            else:
                bye = self._session.leave("failed" if isinstance(error, EnvironmentFailed) else "leaving", reason)
            if bye is not None:
                self._channel.send_nowait(bye)
