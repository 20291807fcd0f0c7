"""One session over one channel: who is told what when, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aioseed.actor.conversation import Conversation
from aioseed.actor.group import perform
from aioseed.actor.session import ActorEvent, ActorSession
from aioseed.actor.watch import Watch
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, StepColumns
from aioseed.wire.columns import STEP_TYPE, ActionLayout, StepLayout, StepMessage
from aioseed.wire.messages import Bye, Hello, Ping, Pong, Revoke, Welcome, decode_control

pytestmark = pytest.mark.virtual_time

STEPS = StepLayout(ArraySpec("float32", (1,)), 0)
HELLO = Hello(library="test", actor_id="a", environments=1, observation={}, action={})
WELCOME = Welcome(
    library="test",
    run_id="run",
    slots=[0],
    epochs=[1],
    max_step_rows=64,
    max_message_bytes=2**20,
    step_deadline_s=5.0,
    ping_interval_s=5.0,
    ping_timeout_s=5.0,
    resume_token="",
)


class Still:
    """An environment in which nothing happens."""

    def reset(self, rows: np.ndarray, seeds: Any, columns: StepColumns) -> None:
        columns.flags[rows] = FIRST

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        columns.flags[:] = 0


class Talk:
    """A conversation whose channel and workers are the test's own (it stands for both)."""

    def __init__(self) -> None:
        self.message = StepMessage(STEPS, 1)
        self.session = ActorSession([self.message], ActionLayout(discrete(3)), [])
        self.sent: list[bytes] = []
        self.closed = False
        self.jobs: list[Any] = []
        self.listener: Callable[..., None] | None = None
        self.ticks = 0
        self.events: list[ActorEvent] = []
        self.welcomes: list[Welcome] = []
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        watch = Watch(1, 60.0, asyncio.get_running_loop().time())
        conversation = Conversation(
            self,  # type: ignore[arg-type]
            self.session,
            self,  # type: ignore[arg-type]
            watch,
            self.events.append,
            self.welcomes.append,
            self._tick,
        )
        self.running = asyncio.create_task(conversation.run(HELLO, 5.0))

    def _tick(self) -> None:
        self.ticks += 1

    # -- of a channel

    def send_nowait(self, payload: bytes) -> None:
        self.sent.append(payload)

    async def receive_each(self, take: Callable[[bytes], bool]) -> None:
        while take(await self._said.get()):
            pass

    async def close(self) -> None:
        self.closed = True

    # -- of a crew

    def listen(self, listener: Callable[..., None] | None) -> None:
        self.listener = listener

    def submit(self, jobs: Any) -> None:
        self.jobs += jobs

    # -- of a test

    async def hears(self, message: Any) -> None:
        self._said.put_nowait(message.encode())
        await asyncio.sleep(0.01)

    def works(self) -> None:
        """Do the job that waits."""
        [(group, job)], self.jobs = self.jobs, []
        assert self.listener is not None
        self.listener(group, perform(Still(), self.message, job))  # type: ignore[arg-type]


async def test_work_that_has_ended_is_no_work_that_hangs_however_long_its_answer_takes() -> None:
    talk = Talk()
    await talk.hears(WELCOME)
    await asyncio.sleep(4.0)
    talk.works()
    for number in range(10):  # twice as long as a step may take, and longer than any silence
        await asyncio.sleep(2.0)
        await talk.hears(Pong(number=number))
    assert not talk.running.done()
    assert [payload[0] for payload in talk.sent].count(STEP_TYPE) == 1
    await talk.hears(Ping(number=7))
    pong = decode_control(talk.sent[-1])
    assert isinstance(pong, Pong) and pong.stepping_share == pytest.approx(4 / 24, abs=0.02)
    assert talk.ticks >= 24 / 0.25 - 2
    await talk.hears(Bye(code="run_over"))
    assert (await talk.running).outcome == "run_over" and talk.closed and talk.listener is None


async def test_an_actor_that_is_told_to_end_says_so_and_listens_to_nobody_any_more() -> None:
    talk = Talk()
    await talk.hears(WELCOME)
    assert talk.listener is not None
    talk.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talk.running
    assert decode_control(talk.sent[-1]) == Bye(code="leaving") and talk.closed and talk.listener is None


async def test_who_leaves_to_come_back_names_no_fault_of_its_own() -> None:
    talk = Talk()
    await talk.hears(WELCOME)
    talk.works()
    await talk.hears(Revoke(slots=[0], epochs=[1]))
    for number in range(8):
        await asyncio.sleep(2.0)
        if not talk.running.done():
            await talk.hears(Pong(number=number))
    end = await talk.running
    assert end.outcome == "retry" and "leases no environment of this actor" in str(end.error)
    assert decode_control(talk.sent[-1]) == Bye(code="leaving")
    assert [event.kind for event in talk.events] == ["welcomed", "revoked"] and talk.welcomes == [WELCOME]
