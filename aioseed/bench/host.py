"""Measure a learner host alone: inference and training beside each other, fed by recorded rows, without sockets.

What an accelerator and the processor beside it can take, however fast environments and networks are. First each stage
by itself, by the clock, device included; then both threads at once, as in a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from aioseed.bench.pipeline import Alone, Costs, Pipeline, contract_of, group_of
from aioseed.bench.recorded import record
from aioseed.errors import AioseedError
from aioseed.host.config import RunConfig
from aioseed.serving.handshake import Contract

GROUPS = 2
"""Of environments, which step in turns."""
RECORDED_STEPS = 8
WARM_UP_S = 2.0


class Reading(NamedTuple):
    """Hold the sums of a moment."""

    at_s: float
    cpu_s: float
    rows: float
    batches: float
    act_s: float
    append_s: float
    blocked_s: float
    trained: float
    updates: float
    busy_s: float
    idle_ready_s: float


class HostResult(NamedTuple):
    """Hold what was measured."""

    rows: int
    alone: Costs
    began: Reading
    ended: Reading
    utilisation: float | None  # of the device, where something tells

    def figures(self) -> dict[str, object]:
        """Return what is printed; shares are of the time of the thread in question."""
        spent = Reading(*(after - before for before, after in zip(self.began, self.ended, strict=True)))

        def share(part_s: float) -> float:
            return round(max(part_s, 0.0) / spent.at_s, 4)

        return {
            "seconds": round(spent.at_s, 3),
            "batch_rows": self.rows,
            "acted_steps_per_s": round(spent.rows / spent.at_s, 1),
            "trained_steps_per_s": round(spent.trained / spent.at_s, 1),
            "updates_per_s": round(spent.updates / spent.at_s, 2),
            "alone_ns": {name.removesuffix("_s"): round(cost * 1e9, 1) for name, cost in self.alone._asdict().items()},
            "act_ms": round(spent.act_s / max(spent.batches, 1) * 1e3, 3),
            "update_ms": round(spent.busy_s / max(spent.updates, 1) * 1e3, 3),
            "act_share": share(spent.act_s),
            "assembly_share": share(spent.append_s - spent.blocked_s),
            "blocked_share": share(spent.blocked_s),
            "train_share": share(spent.busy_s),
            "train_idle_share": share(spent.idle_ready_s),
            "device_utilisation": self.utilisation,
            "cpu_s_per_million_steps": round(spent.cpu_s / max(spent.rows, 1) * 1e6, 2),
        }


async def measure_host(config: RunConfig, seconds: float) -> HostResult:
    """Measure for about `seconds` each stage alone, then for `seconds` all of it. Safe to cancel between the two.

    Raises:
        AioseedError: Something cannot be built, the environment failed, or inference or training did.
    """
    return await asyncio.to_thread(_measure, config, await contract_of(config), seconds)


def _measure(config: RunConfig, contract: Contract, seconds: float) -> HostResult:
    with contextlib.closing(group_of(config)) as environments:
        recorded = record(environments, RECORDED_STEPS)
    pipeline = Pipeline(config, contract, recorded, GROUPS)
    alone = Alone(pipeline, time.perf_counter).measure(seconds)
    with _Threads(pipeline) as threads:
        time.sleep(WARM_UP_S)
        with _utilisation() as seen:
            began = threads.read()
            time.sleep(seconds)
            ended = threads.read()
    mean = round(sum(seen) / len(seen) / 100, 4) if seen else None
    return HostResult(pipeline.rows, alone, began, ended, mean)


class _Threads:
    """Run inference and training, each in its thread, until told to stop."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"aioseed-{name}", daemon=True)
            for name, work in (("inference", self._infer), ("training", self._train))
        ]

    def __enter__(self) -> _Threads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pipeline.runtime.assembler.stop()
        for thread in self._threads:
            thread.join()

    def read(self) -> Reading:
        """Return the sums so far.

        Raises:
            AioseedError: A thread has failed.
        """
        if self._failures:
            raise AioseedError(f"{type(self._failures[0]).__name__}: {self._failures[0]}") from self._failures[0]
        runtime = self._pipeline.runtime
        times, done = runtime.engine.times, runtime.loop.summary()
        return Reading(
            time.perf_counter(),
            time.process_time(),
            times.rows,
            times.batches,
            times.act_s,
            times.append_s,
            runtime.assembler.statistics().blocked_s,
            done.trained_transitions,
            done.version,
            done.busy_s,
            done.idle_ready_s,
        )

    def _infer(self) -> None:
        while not self._stop.is_set():
            self._pipeline.runtime.engine.handle(self._pipeline.next_batch(), more=True)

    def _train(self) -> None:
        self._pipeline.runtime.loop.run(self._stop)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()


@contextlib.contextmanager
def _utilisation() -> Iterator[list[float]]:
    """Collect how busy an NVIDIA device was, in percent, while the body runs; nothing where its tool is not there."""
    seen: list[float] = []
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield seen
        return
    query = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        yield seen
        process.terminate()
        assert process.stdout is not None
        seen += [float(line) for line in process.stdout.read().split("\n") if line.strip().isdecimal()]
