"""A batch of environments that counts, and a learner that says what a test tells it to say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from aioseed.actor.run import run_actor
from aioseed.specs import ArraySpec, discrete
from aioseed.transport.channel import Channel, ListenOptions
from aioseed.transport.keyring import Keyring
from aioseed.transport.memory import MemoryTransport
from aioseed.types import FIRST, EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed.wire import packing
from aioseed.wire.columns import HEADER, STEP_TYPE, ActionLayout, StepLayout, step_views
from aioseed.wire.messages import Bye, Hello, Ping, Welcome, decode_control
from aioseed.wire.packing import PACKED_STEP_TYPE

SPEC = EnvironmentSpec(ArraySpec("float32", (2,)), discrete(4))
STEPS = StepLayout(SPEC.observation, 1)
ACTIONS = ActionLayout(SPEC.action)


class CountingEnvironment:
    """Observe (steps since the reset, last action); never ends an episode."""

    def __init__(self, count: int, before_step: Callable[[], None] = lambda: None) -> None:
        self.count = count
        self.spec = SPEC
        self.metrics = (EnvironmentMetric("score", "sum"),)
        self.before_step = before_step
        self.resets: list[tuple[list[int], list[int]]] = []
        self.actions: list[list[int]] = []
        self.closed = False
        self.threads = {threading.current_thread()}
        self._steps = np.zeros(count)

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        self.threads.add(threading.current_thread())
        self.resets.append((rows.tolist(), list(seeds)))
        self._steps[rows] = 0
        columns.flags[rows] = FIRST
        columns.reward[rows] = 0
        columns.observation[0][rows] = 0

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        self.before_step()
        self.actions.append(actions.tolist())
        self._steps += 1
        columns.flags[:] = 0
        columns.reward[:] = 1
        columns.observation[0][:, 0] = self._steps
        columns.observation[0][:, 1] = actions

    def close(self) -> None:
        self.threads.add(threading.current_thread())
        self.closed = True


class Step(NamedTuple):
    payload: bytes
    columns: StepColumns

    @property
    def slots(self) -> list[int]:
        return self.columns.slot.tolist()

    @property
    def epochs(self) -> list[int]:
        return self.columns.epoch.tolist()

    @property
    def sequences(self) -> list[int]:
        return self.columns.sequence.tolist()


class Peer:
    """Speak for the learner on one channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.ended = asyncio.Event()

    def say(self, message: Any) -> None:
        self.channel.send_nowait(message if isinstance(message, bytes) else message.encode())

    async def hear(self) -> Any:
        """Return the next message: a control message or a Step."""
        payload = await self.channel.receive()
        if payload[0] == PACKED_STEP_TYPE:
            plain = packing.unpack(STEPS, payload, packing.packed_rows(STEPS, payload, 1024, 2**20))
            return Step(payload, step_views(STEPS, plain))
        if payload[0] == STEP_TYPE:
            return Step(payload, step_views(STEPS, payload))
        return decode_control(payload)

    async def step(self) -> Step:
        message = await self.hear()
        assert isinstance(message, Step), message
        return message

    async def steps(self, count: int) -> list[Step]:
        """Return the next steps, sorted by their first slot."""
        return sorted([await self.step() for _ in range(count)], key=lambda step: step.slots)

    async def hello(self) -> Hello:
        message = await self.hear()
        assert isinstance(message, Hello), message
        return message

    def welcome(self, slots: Sequence[int], epochs: Sequence[int], **changes: Any) -> None:
        fields: dict[str, Any] = {
            "library": "test",
            "run_id": "run",
            "slots": list(slots),
            "epochs": list(epochs),
            "max_step_rows": 1024,
            "max_message_bytes": 2**20,
            "step_deadline_s": 60.0,
            "ping_interval_s": 60.0,
            "ping_timeout_s": 60.0,
            "resume_token": "next",
            "seed": 7,
        }
        self.say(Welcome(**{**fields, **changes}))

    def act(self, step: Step, actions: Sequence[int]) -> None:
        rows = len(step.slots)
        identity = step.payload[HEADER.size : ACTIONS.identity_bytes(rows)]
        self.say(ACTIONS.encode(rows, identity, np.array(actions, np.int32).tobytes()))

    async def barrier(self) -> list[Any]:
        """Return what the actor had to say before it answers a PING: all that it decided on what we said so far."""
        self.say(Ping(number=99))
        heard = []
        while getattr(message := await self.hear(), "kind", "") != "pong":
            heard.append(message)
        return heard

    async def greet(self, slots: Sequence[int], epochs: Sequence[int], **changes: Any) -> Hello:
        hello = await self.hello()
        self.welcome(slots, epochs, **changes)
        return hello

    def end_run(self) -> None:
        self.say(Bye(code="run_over"))

    async def cut(self) -> None:
        """End the channel without a word."""
        await self.channel.close("cut")


class Held:
    """Steps that wait until they are let go, and fail then if they are to."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error
        self._entered, self._let_go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self._entered.set()
        self._let_go.wait(10)
        if self._error is not None:
            raise self._error

    async def under_way(self) -> None:
        """Wait until an environment is in the middle of a step."""
        await asyncio.to_thread(self._entered.wait, 10)

    def let_go(self) -> None:
        self._let_go.set()


class Stage:
    """Run one actor against scripted peers."""

    url = "memory://learner"

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.environments: list[CountingEnvironment] = []
        self.events: list[Any] = []
        self.before_step: Callable[[], None] = lambda: None
        self.tasks: list[asyncio.Task[Any]] = []

    async def handle(self, channel: Channel) -> None:
        peer = Peer(channel)
        self.peers.put_nowait(peer)
        await peer.ended.wait()

    async def listen(self, token: str | None = None) -> Any:
        keys = None if token is None else Keyring.of(token)
        return await self.transport.listen(self.url, self.handle, ListenOptions(keys))

    def make(self, count: int) -> CountingEnvironment:
        environment = CountingEnvironment(count, lambda: self.before_step())
        self.environments.append(environment)
        return environment

    def hold_steps(self, error: Exception | None = None) -> Held:
        """Let all steps from now on wait, and raise `error` in the end if there is one."""
        held = Held(error)
        self.before_step = held
        return held

    def start(self, environments: int, groups: int = 1, **options: Any) -> asyncio.Task[Any]:
        options.setdefault("make_env", self.make)
        task = asyncio.ensure_future(
            run_actor(
                self.url,
                environments=environments,
                groups=groups,
                transport=self.transport,
                on_event=self.events.append,
                **options,
            )
        )
        self.tasks.append(task)
        return task

    async def peer(self) -> Peer:
        """Return the next channel that an actor opens; an actor that ends meanwhile fails the test."""
        next_peer = asyncio.ensure_future(self.peers.get())
        await asyncio.wait([next_peer, *self.tasks], return_when=asyncio.FIRST_COMPLETED)
        if not next_peer.done():
            next_peer.cancel()
            raise AssertionError("the actor ended") from self.tasks[-1].exception()
        return await next_peer

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Give a stage, and hold every actor on it to its promise: it leaves no thread, task or open environment behind."""
    stage = Stage()
    tasks_before, threads_before = asyncio.all_tasks(), set(threading.enumerate())
    yield stage
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)
    assert all(environment.closed for environment in stage.environments)
    left = {thread for thread in set(threading.enumerate()) - threads_before if "aioseed" in thread.name}
    assert not left
    handlers = {task for task in asyncio.all_tasks() if "handler of" in task.get_name()}
    assert asyncio.all_tasks() - tasks_before - handlers <= {asyncio.current_task()}
    for task in handlers:
        task.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)
