"""Many sessions of one learner: all back after a restart, and nothing left behind by those that come and go."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aioseed.chaos.cast import Cast, trial_config
from aioseed.chaos.evidence import Books, Verdicts
from aioseed.chaos.processes import Process
from aioseed.host.config import RunConfig
from aioseed.testing.proxy import Proxy

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0), pytest.mark.may_block("the test itself starts processes")]

SEED = 9
ROOM = (
    "environment={name: 'paced:make'}",
    "serving.max_environments=512",
    "serving.max_batch_rows=256",
    "serving.buckets=[32, 256]",
)


class Many:
    """A learner, a proxy, and processes with many sessions each."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.cast = Cast(folder, config)
        self.books = Books(self.cast.run_dir / "metrics.jsonl", Verdicts())
        self._folder = folder
        self.crowds: list[Process] = []

    def join(self, port: int, processes: int, sessions: int, life_s: float = 0.0) -> None:
        os.environ["AIOSEED_TOKEN"] = (self._folder / "token").read_text().strip()
        words = ["many_sessions", f"ws://127.0.0.1:{port}", str(sessions // processes), str(life_s)]
        self.crowds += [Process(words, self._folder / "crowd.out") for _ in range(processes)]

    async def until(self, holds: Callable[[dict[str, float]], bool], timeout_s: float = 300.0) -> dict[str, float]:
        async with asyncio.timeout(timeout_s):
            while True:
                assert all(crowd.alive for crowd in self.crowds), self.crowds[0].lines[-5:]
                for line in await asyncio.to_thread(self.books.read, 0.0):
                    if holds(line):
                        return line
                await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """End all crowds and wait until the learner has nobody left."""
        for crowd in self.crowds:
            await asyncio.to_thread(crowd.end)
        self.crowds.clear()
        await self.until(lambda line: line.get("run/environments") == 0)

    async def end(self) -> None:
        for crowd in self.crowds:
            await asyncio.to_thread(crowd.end)
        await self.cast.end()


@pytest.fixture
async def many(tmp_path, small, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = Many(tmp_path, trial_config(small(*ROOM), 5.0))
    try:
        assert await made.cast.start_learner() is not None
        yield made
    finally:
        await made.end()


@pytest.mark.alone
async def test_256_sessions_of_two_processes_step_again_after_a_restart(many, monkeypatch):
    monkeypatch.setenv("PACED_STEP_S", "0.5")
    many.join(many.cast.learner_port, 2, 256)
    await many.until(lambda line: line["run/environments"] == 256)
    many.cast.learner.signal(signal.SIGKILL)
    await asyncio.to_thread(many.cast.learner.ends, 10.0)
    many.books.restarted({})
    loop = asyncio.get_running_loop()
    listening_s = await many.cast.start_learner()
    assert listening_s is not None
    await many.until(lambda line: line["run/environments"] >= 0.99 * 256)
    took_s = loop.time() - listening_s
    ready = next((line for line in many.cast.learner.lines if "ready" in line), "")
    print(f"99 % of 256 sessions were back {took_s:.1f} s after the learner listened {ready}")
    assert took_s <= 10.0


@pytest.mark.alone
async def test_a_third_of_the_environments_frozen_costs_the_others_nothing_that_lasts(many):
    """Environments take 50 ms a step, so that the machine has room: what is measured is waiting, not computing."""
    many.join(many.cast.learner_port, 3, 24)
    await many.until(lambda line: line["run/environments"] == 24)
    before = await pace(many, 20.0)
    many.crowds[0].signal(signal.SIGSTOP)
    try:
        during = await pace(many, 30.0)
    finally:
        many.crowds[0].signal(signal.SIGCONT)
    others = 2 / 3 * before
    print(f"the others made {others:.0f} steps/s before and {during:.0f} while a third was frozen")
    assert during >= 0.95 * others
    await many.until(lambda line: line["run/environments"] == 24)


async def pace(many: Many, seconds: float) -> float:
    """Return the median of the steps a second, taken twice a second for so long."""
    loop, rates = asyncio.get_running_loop(), []
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        rates += [line["run/env_steps_per_s"] for line in await asyncio.to_thread(many.books.read, 0.0)]
        await asyncio.sleep(0.1)
    return sorted(rates)[len(rates) // 2]


def resources(pid: int) -> tuple[int, int, int]:
    """Return resident memory in KiB, descriptors and threads of a process."""
    words = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(words["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(words["Threads"])


async def test_nothing_grows_while_sessions_come_and_go(many, full):
    """32 sessions that live up to 20 s; each second every one of them may lose its connection, with a chance of 1 %."""
    warm_s, end_s = (1800.0, 86_400.0) if full else (300.0, 1200.0)
    choose, loop = random.Random(SEED), asyncio.get_running_loop()
    pid = many.cast.learner.pid
    many.join(many.cast.learner_port, 1, 1)  # with its first connection, a loop opens a descriptor that it keeps
    await many.until(lambda line: line.get("run/environments") == 1)
    await many.leave()
    before = resources(pid)
    cut, warm = 0, None
    async with Proxy("127.0.0.1", many.cast.learner_port) as proxy:
        many.join(proxy.port, 2, 32, life_s=20.0)
        began_s = loop.time()
        while (now_s := loop.time() - began_s) < end_s:
            cut += proxy.cut(sum(choose.random() < 0.01 for _ in range(proxy.connections)))
            await asyncio.to_thread(many.books.read, now_s)
            if warm is None and now_s >= warm_s:
                warm = resources(pid)
            await asyncio.sleep(1.0)
        busy = resources(pid)
        await many.leave()
    after = resources(pid)
    print(f"seed {SEED}: {cut} connections cut, {many.books.newest['ledger/accepted']:,.0f} steps; resident KiB, ")
    print(f"descriptors and threads: before {before}, warm {warm}, at the end {busy}, all gone {after}")
    assert warm is not None and busy[0] <= 1.02 * warm[0]
    assert after[1] == before[1]
    assert after[2] <= warm[2]  # pools of threads fill up as they are first used
    assert many.books.imbalance == 0
