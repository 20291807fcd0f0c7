"""Hostile frames beside honest actors, and a crowd that only listens: what it costs the learner and the others.

A serving learner (everything but JAX: a stub answers) runs in this process, and honest peers step over the same
sockets. ``AIOSEED_CHAOS_FULL=1`` takes five times as many frames, and more sessions for longer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aioseed.chaos.processes import Process
from aioseed.errors import AioseedError, ChannelClosed
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract
from aioseed.serving.intake import ActionTable, ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.serving.slots import SlotTable
from aioseed.telemetry.counters import Metrics
from aioseed.transport import DialOptions, Keyring, ListenOptions, Transport
from aioseed.types import FIRST
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage
from aioseed.wire.messages import Welcome

from .crowd import SPEC, TOKEN, TRANSPORTS, answered, join

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.alone,
    pytest.mark.timeout(1500),
    pytest.mark.may_block("it reads /proc"),
]

FULL = bool(os.environ.get("AIOSEED_CHAOS_FULL"))
FRAMES = int(os.environ.get("AIOSEED_CHAOS_FRAMES", 1_000_000 if FULL else 200_000))
FRAMES_PER_S = 1000
HONEST = 8
IDLE = {"ws": 5000, "grpc": 2000} if FULL else {"ws": 2000, "grpc": 500}
IDLE_S = 600.0 if FULL else 120.0
SEED = int(os.environ.get("AIOSEED_CHAOS_SEED", "0"))
STEPS, ACTIONS = StepLayout(SPEC.observation, 0), ActionLayout(SPEC.action)


class Desk:
    """A server with an inference that answers at once."""

    def __init__(self, capacity: int) -> None:
        self.metrics = Metrics()
        config = ServingConfig(max_environments=capacity, max_batch_rows=min(1024, capacity))
        self.server = Server(config, RunFacts("chaos", "aioseed chaos", 0, 0, 2**20), self.metrics)
        self._actions = ActionTable(np.zeros(capacity + 1, np.int32))
        limits = Limits(config.max_batch_rows, 2, config.batch_deadline_s)
        table = SlotTable(capacity, 1)
        self._intake = Intake(STEPS, ACTIONS, table, self._actions, limits, self._infer)
        contract = Contract(SPEC, None, (), frozenset({"train", "evaluate"}))
        self.server.open(Serving(contract, table, self._intake, lambda news: None))

    def _infer(self, batch: ClosedBatch) -> None:
        self._intake.pool.give_back(batch.rows)
        self.server.answer_from(batch, np.zeros(batch.count, np.int32).tobytes(), 4)


async def step(transport: Transport, url: str, latencies_s: list[float], over: asyncio.Event) -> None:
    """Be an honest actor until told otherwise; whatever happens to it fails the test."""
    channel, welcome = await join(transport, url)
    message = StepMessage(STEPS, 1)
    sequence = 0
    while not over.is_set():
        columns = message.columns
        columns.slot[:], columns.epoch[:], columns.sequence[:] = welcome.slots, welcome.epochs, sequence
        columns.flags[:] = FIRST if sequence == 0 else 0
        began_s = time.perf_counter()
        channel.send_nowait(message.tobytes())
        await answered(channel)
        latencies_s.append(time.perf_counter() - began_s)
        sequence += 1
        await asyncio.sleep(0.01)
    await channel.close()


def hostile(rng: random.Random, welcome: Welcome | None) -> bytes:
    """Return a frame that no actor sends: noise, broken JSON, steps of others, or a good one with flipped bytes."""
    good = StepMessage(STEPS, 1)
    if welcome is not None:
        good.columns.slot[:], good.columns.epoch[:] = welcome.slots, welcome.epochs
    frames = [
        rng.randbytes(rng.randrange(200)),
        b"{" + rng.randbytes(rng.randrange(100)),
        b'{"type":"' + rng.choice([b"hello", b"step", b"bye", b"lease", b"x" * 1000]) + b'"}',
        good.tobytes(),
        bytes([rng.randrange(256)]) + good.tobytes()[1:],
        b"[" * 60_000,
    ]
    frame = bytearray(rng.choice(frames))
    for _ in range(rng.randrange(3)):
        if frame:
            frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)


async def attack(transport: Transport, url: str, rng: random.Random, count: int, per_s: float) -> int:
    """Send so many hostile frames, over as many sessions as it takes, and return how many sessions it took."""
    sent, sessions, began_s = 0, 0, time.perf_counter()
    while sent < count:
        sessions += 1
        try:
            if rng.random() < 0.5:
                channel, welcome = await join(transport, url)
            else:
                channel, welcome = await transport.dial(url, DialOptions(TOKEN, connect_timeout_s=60.0)), None
            for _ in range(rng.randrange(1, 60)):
                channel.send_nowait(hostile(rng, welcome))
                sent += 1
                await asyncio.sleep(max(0.0, began_s + sent / per_s - time.perf_counter()))
            await channel.close()
        except (ChannelClosed, AioseedError):
            continue
    return sessions


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def told(**figures: Any) -> None:
    print(json.dumps({"seed": SEED, "full": FULL, **figures}))


async def settled(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def served(kind: str, capacity: int, body: Callable[[Transport, str, Desk], Coroutine[Any, Any, None]]) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_debug(False)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    desk, transport = Desk(capacity), TRANSPORTS[kind]()
    watch = asyncio.create_task(desk.server.watch())
    options = ListenOptions(Keyring.of(TOKEN), max_message_bytes=2**20, send_buffer_bytes=4 * 2**20)
    listener = await transport.listen(f"{kind}://127.0.0.1:0", desk.server.handle, options)
    try:
        await body(transport, listener.url, desk)
        assert not watch.done()
    finally:
        watch.cancel()
        await listener.close()
    assert failures == [], failures[:3]


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_hostile_frames_beside_honest_actors(kind: str) -> None:
    async def body(transport: Transport, url: str, desk: Desk) -> None:
        rng, over = random.Random(SEED), asyncio.Event()
        latencies_s: list[float] = []
        honest = [asyncio.create_task(step(transport, url, latencies_s, over)) for _ in range(HONEST)]
        await asyncio.sleep(5.0)
        await attack(transport, url, rng, FRAMES // 10, FRAMES_PER_S)  # memory that is taken once is taken
        await settled(lambda: desk.server.sessions == HONEST)
        latencies_s.clear()
        await asyncio.sleep(10.0)
        quiet_s, tasks, files, memory = list(latencies_s), len(asyncio.all_tasks()), descriptors(), resident_bytes()
        latencies_s.clear()
        sessions = await attack(transport, url, rng, FRAMES, FRAMES_PER_S)
        loud_s = list(latencies_s)
        await settled(lambda: desk.server.sessions == HONEST and len(asyncio.all_tasks()) <= tasks)
        await settled(lambda: descriptors() <= files)
        grown = resident_bytes() / memory - 1.0
        before_ms, during_ms = (float(np.quantile(values, 0.99)) * 1e3 for values in (quiet_s, loud_s))
        told(kind=kind, frames=FRAMES, sessions=sessions, p99_before_ms=before_ms, p99_during_ms=during_ms, grown=grown)
        assert not any(task.done() for task in honest)
        over.set()
        await asyncio.gather(*honest)
        assert grown <= 0.02
        assert during_ms <= max(2.0 * before_ms, before_ms + 5.0)

    await served(kind, 64, body)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_crowd_that_only_listens_is_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = IDLE[kind]

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    async def body(transport: Transport, url: str, desk: Desk) -> None:
        before, files = resident_bytes(), descriptors()
        crowd = Process(["crowd", url, str(count)], tmp_path / "crowd.out")
        try:
            async with asyncio.timeout(300.0):
                while "joined" not in crowd.lines:
                    assert crowd.alive, crowd.lines[-5:]
                    await asyncio.sleep(0.1)
            await asyncio.sleep(IDLE_S)
            lost = count - desk.server.sessions
            each_kib, connections = (resident_bytes() - before) / count / 1024, descriptors() - files
            told(kind=kind, sessions=count, seconds=IDLE_S, lost=lost, connections=connections, kib_each=each_kib)
            assert crowd.alive and lost == 0 and connections >= count
        finally:
            await asyncio.to_thread(crowd.end)

    await served(kind, 2 * count, body)
