"""Hostile frames beside honest actors, and a crowd that only listens: what it costs the learner and the others.

A serving learner (everything but JAX: a stub answers) runs in this process, with honest peers that step over real
sockets; whoever is hostile, and the crowd, is in another one. ``AIOSEED_CHAOS_FULL=1`` takes five times as many frames,
and more sessions for longer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aioseed.chaos.processes import Process
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract
from aioseed.serving.intake import ActionTable, ClosedBatch, Intake
from aioseed.serving.rule import TIMER_S, Limits
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.serving.slots import SlotTable
from aioseed.telemetry.counters import Metrics
from aioseed.transport import Keyring, ListenOptions, Transport
from aioseed.types import FIRST
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage

from .crowd import SPEC, TOKEN, TRANSPORTS, answered, join

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.alone,
    pytest.mark.loop_of_programs,
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
        batch.rows.release()
        self.server.answer_from(batch, np.zeros(batch.count, np.int32).tobytes(), 4)


class Latencies:
    """Keep latencies in memory that is taken beforehand: what is measured here is what the learner takes."""

    def __init__(self, room: int) -> None:
        self._values_s = np.full(room, np.nan)
        self._count = 0

    def add(self, latency_s: float) -> None:
        self._values_s[self._count] = latency_s
        self._count += 1

    def clear(self) -> None:
        self._count = 0

    def p99_ms(self) -> float:
        return float(np.quantile(self._values_s[: self._count], 0.99)) * 1e3


async def step(transport: Transport, url: str, latencies: Latencies, over: asyncio.Event) -> None:
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
        latencies.add(time.perf_counter() - began_s)
        sequence += 1
        await asyncio.sleep(0.01)
    await channel.close()


async def ended(process: Process, timeout_s: float) -> str:
    """Wait for the good end of a process and return its last line."""
    code = await asyncio.to_thread(process.ends, timeout_s)
    assert code == 0, process.lines[-5:]
    return process.lines[-1]


@pytest.fixture(autouse=True)
def _refusals_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """pytest keeps each record of the log, with the exception, its traceback and the frame that was refused."""
    caplog.set_level(logging.ERROR, logger="aioseed")


@pytest.fixture(autouse=True)
def _peers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


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
async def test_hostile_frames_beside_honest_actors(kind: str, tmp_path: Path) -> None:
    async def attack(url: str, frames: int, seed: int) -> int:
        words = ["attackers", url, str(frames), str(FRAMES_PER_S), str(seed)]
        attackers = Process(words, tmp_path / "attackers.out")
        try:
            return int((await ended(attackers, 1200.0)).removeprefix("sessions "))
        finally:
            await asyncio.to_thread(attackers.end)

    async def body(transport: Transport, url: str, desk: Desk) -> None:
        over = asyncio.Event()
        latencies = Latencies(room=200 * HONEST * (60 + FRAMES // 100))
        honest = [asyncio.create_task(step(transport, url, latencies, over)) for _ in range(HONEST)]
        await asyncio.sleep(5.0)
        await attack(url, FRAMES // 10, SEED + 1)  # memory that is taken once is taken
        await settled(lambda: desk.server.sessions == HONEST)
        latencies.clear()
        await asyncio.sleep(10.0)
        before_ms, tasks, files, memory = latencies.p99_ms(), len(asyncio.all_tasks()), descriptors(), resident_bytes()
        latencies.clear()
        began_s = time.perf_counter()
        sessions = await attack(url, FRAMES, SEED)
        during_ms, per_s = latencies.p99_ms(), FRAMES / (time.perf_counter() - began_s)
        await settled(lambda: desk.server.sessions == HONEST and len(asyncio.all_tasks()) <= tasks)
        await settled(lambda: descriptors() <= files)
        grown = resident_bytes() / memory - 1.0
        told(kind=kind, frames=FRAMES, per_s=per_s, sessions=sessions, grown=grown)
        told(kind=kind, p99_before_ms=before_ms, p99_during_ms=during_ms)
        assert not any(task.done() for task in honest)
        over.set()
        await asyncio.gather(*honest)
        assert grown <= 0.02
        # A batch that is not complete may wait for a timer, of which none is finer than a millisecond.
        assert during_ms <= max(2.0 * before_ms, before_ms + TIMER_S * 1e3)

    await served(kind, 64, body)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_crowd_that_only_listens_is_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = IDLE[kind]

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
