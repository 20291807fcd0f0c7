"""One trial: a run goes on, things break, and after each fault everything that must hold is looked at from outside."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from aioseed.chaos.cast import Cast, standing
from aioseed.chaos.evidence import Books, Verdicts
from aioseed.chaos.faults import Fault, Kind
from aioseed.errors import CheckpointError, RunDirectoryError
from aioseed.host.config import RunConfig
from aioseed.host.doctor import examine
from aioseed.testing.proxy import Proxy

BACK_S = 120.0
"""Longest time until every environment steps again."""
PACE = 0.5
"""Share of the undisturbed steps a second that must be reached again."""
SAVE_S = 10.0
"""Longest time that a save may take, on a busy machine: a kill during one loses what came since the save before it."""
TERM_S = 20.0
"""Longest time from SIGTERM to the end of a learner."""
_POLL_S = 0.1
_UNDISTURBED_LINES = 6


class Outcome(NamedTuple):
    """Hold what a trial found."""

    faults: dict[str, int]  # by kind; each killed or frozen actor counts
    checked: int
    violations: list[str]
    imbalance: float
    steps: float  # environment steps accepted, of the whole run
    seconds: float
    longest_loss_s: float  # of training time, by one kill of the learner
    longest_end_s: float  # from SIGTERM to the end of the learner
    longest_return_s: float  # from the moment a restarted learner listens until all environments step


class Trial:
    """Run one trial in an event loop; safe to cancel: every process is ended.

    Args:
        folder: Where everything is written; exists.
        config: From `aioseed.chaos.cast.trial_config`.
        faults: What is done, one after another; the trial ends when there are no more.
        say: Told what happens, a line at a time.
    """

    def __init__(self, folder: Path, config: RunConfig, faults: Iterator[Fault], say: Callable[[str], None]) -> None:
        self._folder = folder
        self._config = config
        self._faults = faults
        self._say = say
        self._verdicts = Verdicts()
        self._done: dict[str, int] = {}
        self._pace = 0.0
        self._fresh: list[dict[str, float]] = []  # lines that were read last
        self._steps = self._loss_s = self._end_s = self._return_s = 0.0

    async def run(self, stop: asyncio.Event, minutes: float | None = None) -> Outcome:
        """Inject faults until there are no more, `minutes` are over or `stop` is set; then end the run in order.

        The time begins when all environments step; what was begun is seen through.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._cast = cast = await asyncio.to_thread(Cast, self._folder, self._config)
        self._books = Books(cast.run_dir / "metrics.jsonl", self._verdicts)
        try:
            async with Proxy("127.0.0.1", cast.learner_port) as self._proxy:
                if self._verdicts.check(await cast.start_learner() is not None, "the learner never began to listen"):
                    await cast.start_actors(self._proxy)
                    await self._undisturbed()
                    over_s = None if minutes is None else loop.time() + 60 * minutes
                    await self._break_things(stop, over_s)
                    await self._stop_learner()
        finally:
            await cast.end()
        await self._sound()
        return Outcome(
            faults=self._done,
            checked=self._verdicts.checked,
            violations=self._verdicts.violations,
            imbalance=self._books.imbalance,
            steps=self._steps,
            seconds=loop.time() - began_s,
            longest_loss_s=self._loss_s,
            longest_end_s=self._end_s,
            longest_return_s=self._return_s,
        )

    async def _break_things(self, stop: asyncio.Event, over_s: float | None) -> None:
        now_s = asyncio.get_running_loop().time
        acts = {
            Kind.ACTOR_KILL: self._kill_actors,
            Kind.ACTOR_FREEZE: self._freeze_actors,
            Kind.CONNECTIONS_CUT: self._cut_connections,
            Kind.LEARNER_KILL: self._kill_learner,
            Kind.LEARNER_STOP: self._restart_learner,
            Kind.DISK_FULL: self._fill_disk,
        }
        for fault in self._faults:
            if stop.is_set() or (over_s is not None and now_s() >= over_s):
                return
            count = len(fault.victims) or 1
            self._done[fault.kind] = self._done.get(fault.kind, 0) + count
            self._say(f"{fault.kind} {', '.join(map(str, fault.victims))}".rstrip())
            await acts[fault.kind](fault)
            await self._back()
            await self._sound()
            if not self._cast.learner.alive:
                return  # said already; nothing else can be learned

    async def _kill_actors(self, fault: Fault) -> None:
        await asyncio.gather(*(self._cast.replace_actor(index) for index in fault.victims))

    async def _freeze_actors(self, fault: Fault) -> None:
        frozen = [self._cast.actors[index] for index in fault.victims]
        before = self._accepted()
        for actor in frozen:
            actor.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
            if len(frozen) < len(self._cast.actors):
                moved = await self._until(lambda: self._accepted() > before, BACK_S)
                self._check(moved, "nobody stepped while others were frozen")
        finally:
            for actor in frozen:
                actor.signal(signal.SIGCONT)

    async def _cut_connections(self, fault: Fault) -> None:
        del fault
        self._check(self._proxy.cut() > 0, "there was no connection to cut")

    async def _kill_learner(self, fault: Fault) -> None:
        del fault
        self._cast.learner.signal(signal.SIGKILL)
        died_s = asyncio.get_running_loop().time()
        await asyncio.to_thread(self._cast.learner.ends, 10.0)
        await self._resume(died_s)

    async def _restart_learner(self, fault: Fault) -> None:
        del fault
        await self._stop_learner()
        await self._resume(None)

    async def _stop_learner(self) -> None:
        """End the learner by SIGTERM and look at what it says at the end."""
        loop, learner = asyncio.get_running_loop(), self._cast.learner
        self._check(learner.alive, "the learner ended by itself")
        began_s = loop.time()
        learner.signal(signal.SIGTERM)
        code = await asyncio.to_thread(learner.ends, 3 * TERM_S)
        took_s = loop.time() - began_s
        self._end_s = max(self._end_s, took_s)
        self._check(code == 0, f"the learner ended with {code} after SIGTERM")
        self._check(took_s <= TERM_S, f"the learner took {took_s:.1f} s to end after SIGTERM")
        summary: dict[str, object] = next(
            (json.loads(line) for line in reversed(learner.lines) if line.startswith("{")), {}
        )
        self._check(summary.get("ledger_imbalance") == 0, f"the summary says {summary or 'nothing'}")
        await self._read()
        found = await asyncio.to_thread(standing, self._cast.run_dir)
        accepted, last = self._books.newest.get("ledger/accepted"), found.counters.get("ledger/accepted")
        self._check(last == accepted, f"SIGTERM saved {last} of {accepted} steps")

    async def _resume(self, died_s: float | None) -> None:
        """Start the learner again, and compare what it goes on from with what is in the run directory."""
        await self._read()
        try:
            found = await asyncio.to_thread(standing, self._cast.run_dir)
        except CheckpointError as error:
            self._check(False, str(error))
            return
        if died_s is not None:
            lost_s = self._books.lost_s(died_s, found.version)
            self._loss_s = max(self._loss_s, lost_s)
            interval_s = self._config.training.checkpoint.every_s or 0.0
            self._check(lost_s <= interval_s + SAVE_S, f"a kill lost {lost_s:.1f} s, saves are {interval_s:g} s apart")
        self._books.restarted(found.counters)
        listening_s = await self._cast.start_learner()
        if not self._check(listening_s is not None, "the learner did not come back") or listening_s is None:
            return
        after = await asyncio.to_thread(standing, self._cast.run_dir)
        grown = after.generation == found.generation + 1
        self._check(grown, f"generation {found.generation} was followed by {after.generation}")
        self._check(after.version >= found.version, f"version {found.version} was replaced by {after.version}")
        if await self._until(lambda: self._environments() == self._cast.environments, BACK_S):
            self._return_s = max(self._return_s, asyncio.get_running_loop().time() - listening_s)

    async def _fill_disk(self, fault: Fault) -> None:
        """Let no file of the learner grow for longer than a checkpoint's interval; then it must save again."""
        del fault
        if sys.platform != "linux":
            raise AssertionError("possible_kinds leaves this out here")
        import resource

        pid, interval_s = self._cast.learner.pid, self._config.training.checkpoint.every_s or 0.0
        before = dict(self._books.newest)
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            await asyncio.sleep(interval_s + 2.0)
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

        def grown(name: str) -> bool:
            return self._books.newest.get(name, 0) > before.get(name, 0)

        failed = await self._until(lambda: grown("checkpoints/failed"), BACK_S)
        self._check(failed, "a full disk failed no save")
        self._check(grown("ledger/accepted"), "training stood still while the disk was full")
        saved = await self._until(lambda: grown("checkpoints/saved"), BACK_S)
        self._check(saved, "no save was completed after the disk had space again")
        told = sum("could not be saved" in line for line in self._cast.learner.lines)
        self._check(told > 0, "the learner did not tell that it could not save")

    async def _undisturbed(self) -> None:
        """Wait until all environments step, and note their pace."""
        await self._until(lambda: self._environments() == self._cast.environments, BACK_S)
        paces: list[float] = []

        def enough() -> bool:
            paces.extend(line["run/env_steps_per_s"] for line in self._fresh)
            return len(paces) >= _UNDISTURBED_LINES

        await self._until(enough, BACK_S)
        self._pace = sorted(paces)[len(paces) // 2] if paces else 0.0
        self._say(f"{self._cast.environments} environments, {self._pace:,.0f} steps/s undisturbed")

    async def _back(self) -> None:
        """Check that every environment steps again, at the pace from before."""
        everyone = await self._until(lambda: self._environments() == self._cast.environments, BACK_S)
        self._check(everyone, f"{self._environments()} of {self._cast.environments} environments came back")
        pace = PACE * self._pace

        def fast() -> bool:
            return any((line["run/env_steps_per_s"] or 0) >= pace for line in self._fresh)

        self._check(await self._until(fast, BACK_S), f"the pace stayed below {pace:,.0f} steps/s")
        self._check(self._cast.learner.alive, "the learner ended by itself")
        for index, actor in enumerate(self._cast.actors):
            self._check(actor.alive, f"actor {index} ended by itself")

    async def _sound(self) -> None:
        """Check the run directory, and that nobody failed in a way that nobody foresaw."""
        try:
            diagnosis = await asyncio.to_thread(examine, self._cast.run_dir)
        except RunDirectoryError as error:  # the learner failed before it made one
            self._check(False, str(error))
        else:
            trouble = [f"{one.subject} {one.text}" for one in diagnosis.found if one.level == "trouble"]
            self._check(diagnosis.sound, f"the doctor finds: {'; '.join(trouble)}")
        for process in (self._cast.learner, *self._cast.actors):
            self._check(not any(line.startswith("Traceback") for line in process.lines), "a process left a traceback")

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Read new figures until `holds`, and return False if it does not within `timeout_s`."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while True:
            await self._read()
            if holds():
                return True
            if loop.time() >= until_s or not self._cast.learner.alive:
                return False
            await asyncio.sleep(_POLL_S)

    async def _read(self) -> None:
        self._fresh = await asyncio.to_thread(self._books.read, asyncio.get_running_loop().time())
        self._steps = self._books.newest.get("ledger/accepted", self._steps)

    def _accepted(self) -> float:
        return self._books.newest.get("ledger/accepted", 0)

    def _environments(self) -> float:
        return self._books.newest.get("run/environments", 0)

    def _check(self, holds: bool, sentence: str) -> bool:
        if not holds:
            self._say(f"VIOLATION: {sentence}")
        return self._verdicts.check(holds, sentence)
