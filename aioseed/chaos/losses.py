"""Lose every message of a session once: the request, the reply, or the connection while the learner works on it.

One actor plays a session of so many STEPs against a learner; each STEP is lost at its first attempt. All of them must
be applied once all the same, in one and the same epoch, and the books must balance.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from aioseed.actor.run import run_actor
from aioseed.chaos.invariants import Applied, Expectation, require
from aioseed.chaos.learner import RUN_SEED, Laboratory, SimulatedLearner
from aioseed.serving.config import ServingConfig
from aioseed.testing.counting import CountingEnvironment
from aioseed.testing.inline_worker import InlineWorker
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.wire.columns import STEP_TYPE

Loss = Literal["request", "reply", "in_flight"]
LOSSES: tuple[Loss, ...] = ("request", "reply", "in_flight")
ENVIRONMENTS = 2
REPLY_S = 0.01
"""Time in which a reply gets as far as the place where it is held back."""


class Breaker(Protocol):
    """Break the road between an actor and a learner (`Proxy` does)."""

    def stall(self, direction: Literal["there", "back"]) -> None:
        """Hold back what is sent in a direction."""

    def cut(self) -> object:
        """End every connection; what is held back or under way is lost."""


class Lost(NamedTuple):
    """Report a session that survived."""

    messages: int  # STEPs that were lost once
    rows: int  # that were applied
    resumed: int  # sessions that went on


class LosingTransport(Transport):
    """Lose each STEP of an actor once (a transport around another)."""

    def __init__(self, inner: Transport, learner: SimulatedLearner, breaker: Breaker, loss: Loss, steps: int) -> None:
        self.schemes = inner.schemes
        self.lost: set[bytes] = set()
        self.done = asyncio.Event()
        self._inner = inner
        self._learner = learner
        self._breaker = breaker
        self._loss: Loss = loss
        self._steps = steps
        self._armed = False
        if loss == "in_flight":
            learner.submitted = lambda: self._break_in(0.0)
        elif loss == "reply":
            learner.answered = lambda: self._break_in(REPLY_S)

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen as the other does."""
        return await self._inner.listen(url, handler, options)

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Dial as the other does."""
        return _LosingChannel(await self._inner.dial(url, options), self.send)

    def send(self, channel: Channel, payload: bytes) -> None:
        """Send a message, or lose it."""
        if payload[0] != STEP_TYPE or payload in self.lost or self.done.is_set():
            channel.send_nowait(payload)
            return
        if len(self.lost) == self._steps:
            self.done.set()
            return
        self.lost.add(payload)
        if self._loss == "request":
            self._breaker.stall("there")
        elif self._loss == "reply":
            self._breaker.stall("back")
        self._armed = True
        channel.send_nowait(payload)
        if self._loss == "request":
            self._break_in(0.0)

    def _break_in(self, pause_s: float) -> None:
        if self._armed:
            self._armed = False
            asyncio.get_running_loop().call_later(pause_s, self._breaker.cut)


class _LosingChannel(Channel):
    def __init__(self, inner: Channel, send: Callable[[Channel, bytes], None]) -> None:
        self._inner = inner
        self._send = send

    @property
    def peer(self) -> str:
        return self._inner.peer

    def send_nowait(self, payload: bytes) -> None:
        self._send(self._inner, payload)

    async def send(self, payload: bytes) -> None:
        await self._inner.send(payload)

    async def receive(self) -> bytes:
        return await self._inner.receive()

    async def close(self, reason: str = "") -> None:
        await self._inner.close(reason)


async def lose_every_message(
    laboratory: Laboratory,
    transport: Transport,
    url: str,
    loss: Loss,
    steps: int,
    through: Callable[[str], tuple[str, Breaker]],
) -> Lost:
    """Play a session of `steps` STEPs over `transport`, each lost once, and check that nothing shows.

    Args:
        url: Where the learner listens.
        through: Given the learner's real address, returns the one to dial and what breaks the road there.

    Raises:
        Violation: It shows.
    """
    rng = random.Random(steps)  # noqa: S311
    applied = Applied()
    config = ServingConfig(max_environments=24, max_batch_rows=24, resume_grace_s=60.0)
    learner = SimulatedLearner(laboratory, config, rng, 1, None, Expectation(RUN_SEED), applied)
    address, breaker = through(await learner.listen(transport, url))
    losing = LosingTransport(transport, learner, breaker, loss, steps)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(learner.run())
        acting = tasks.create_task(
            run_actor(
                address,
                CountingEnvironment,
                environments=ENVIRONMENTS,
                groups=1,
                transport=losing,
                make_worker=lambda index, count, make: InlineWorker(index, count, make, lambda: 0.0),
                jitter=lambda: 0.0,
                on_event=lambda event: None,
            )
        )
        await losing.done.wait()
        await learner.end()
        running.cancel()
        await acting
    resumed = learner.metrics.counter("serving/resumed").value
    require(applied.rows == ENVIRONMENTS * steps, f"{applied.rows} rows were applied, {ENVIRONMENTS * steps} were sent")
    require(resumed == steps, f"{resumed} sessions went on after {steps} losses")
    require(learner.table.epoch.max() & 0xFFFFFFFF == 1, "an environment was reset")
    return Lost(len(losing.lost), applied.rows, resumed)
