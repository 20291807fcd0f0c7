"""A learner's runtime without sockets: batches of recorded rows go straight into inference, unrolls into training."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from aioseed.actor.task import task_of
from aioseed.host.accelerator import default_cache, prepare
from aioseed.host.config import RunConfig
from aioseed.host.probe import probe
from aioseed.host.runtime import Hooks, Runtime, build_runtime
from aioseed.plugins import environment_plugin
from aioseed.serving.handshake import Contract
from aioseed.serving.intake import ClosedBatch
from aioseed.serving.rows import BatchRows
from aioseed.serving.rule import Close
from aioseed.serving.thread import Leased
from aioseed.telemetry.counters import Metrics
from aioseed.types import FIRST, BatchEnvironment, StepColumns
from aioseed.wire.columns import flat_columns

MIN_CALLS = 3
"""Calls of a stage that are measured at least, however long they take."""


class Pipeline:
    """Hold a runtime and make the batches that its environments would send, all of them stepping in turns.

    Args:
        recorded: Rows of environments, with which columns are filled in turn as the pool makes them.
        groups: Batches of so many rows take turns; each group's rows hold slots of their own.
    """

    def __init__(self, config: RunConfig, contract: Contract, recorded: Sequence[StepColumns], groups: int = 1) -> None:
        self.runtime: Runtime = build_runtime(_with_room(config), contract, 1, None, Metrics(), _no_hooks())
        self.rows = served_rows(config)
        self._recorded = deque(recorded)
        self._filled: set[BatchRows] = set()  # which hold recorded rows
        self._groups = [np.arange(group * self.rows, (group + 1) * self.rows) for group in range(groups)]
        for slots in self._groups:
            self.runtime.engine.handle(Leased(slots, False))
        self._turns = 0

    def next_batch(self) -> ClosedBatch:
        """Return the next step of the group whose turn it is; the one before it must have been served."""
        step, turn = divmod(self._turns, len(self._groups))
        self._turns += 1
        slots, batch, rows = self._groups[turn], self.runtime.intake.pool.take(), self.rows
        if batch not in self._filled:
            _fill(batch, self._recorded[0], rows)
            self._recorded.rotate(-1)
            self._filled.add(batch)
        columns = batch.columns
        columns.slot[:rows] = slots
        columns.epoch[:rows] = 1
        columns.sequence[:rows] = step
        columns.flags[:rows] = FIRST if step == 0 else 0
        batch.resident_rows = max(batch.resident_rows, rows)
        epochs = columns.epoch[:rows].copy()
        return ClosedBatch(batch, rows, [], slots, epochs, b"", b"", 0, 0.0, 0.0, Close.ALL)


class Costs(NamedTuple):
    """Hold what one environment step costs a learner, in seconds by the clock it was measured with."""

    act_s: float
    assembly_s: float
    train_s: float


class Alone:
    """Drive inference and training in turns in one thread, so that each has the machine to itself.

    Args:
        clock: `time.process_time` for what a step takes of the processors, `time.perf_counter` for what it takes.
    """

    def __init__(self, pipeline: Pipeline, clock: Callable[[], float]) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._train_s = 0.0
        self._train_calls = 0

    def measure(self, seconds: float) -> Costs:
        """Return what acting, assembly and training cost for one step, over about `seconds`."""
        runtime = self._pipeline.runtime
        self._until(1, 0.0)  # the first call of everything is not like the others
        times = runtime.engine.times
        act_s, append_s, rows = times.act_s, times.append_s, times.rows
        self._train_s, self._train_calls = 0.0, 0
        trained = runtime.loop.summary().trained_transitions
        serving_s = self._until(MIN_CALLS, seconds)
        act_s, append_s, rows = times.act_s - act_s, times.append_s - append_s, times.rows - rows
        # The engine measures with a clock of its own; the time taken is shared out in the same proportion.
        per_row_s = serving_s / rows / max(act_s + append_s, 1e-12)
        trained = runtime.loop.summary().trained_transitions - trained
        return Costs(act_s * per_row_s, append_s * per_row_s, self._train_s / max(trained, 1))

    def _until(self, train_calls: int, seconds: float) -> float:
        """Serve and train until so many updates were made and so much time was spent; return inference's share."""
        runtime, clock = self._pipeline.runtime, self._clock
        until_s, serving_s = time.monotonic() + seconds, 0.0
        while self._train_calls < train_calls or time.monotonic() < until_s:
            began_s = clock()
            runtime.engine.handle(self._pipeline.next_batch())
            serving_s += clock() - began_s
            while runtime.source.ready:
                began_s = clock()
                runtime.loop.step(0.0)
                self._train_s += clock() - began_s
                self._train_calls += 1
        return serving_s


async def contract_of(config: RunConfig) -> Contract:
    """Set JAX up as a learner does, and ask a child process for the specs of the environment. Safe to cancel.

    Raises:
        AioseedError: The environment cannot be made.
    """
    described = await probe(config.environment)
    await asyncio.to_thread(prepare, default_cache(), described.spec.observation)
    task = task_of(config.environment.name, described.task)
    return Contract(described.spec, task, described.metrics, frozenset({"train", "evaluate"}))


def group_of(config: RunConfig) -> BatchEnvironment:
    """Return the environments of one group of an actor; the caller closes them. Thread: any one."""
    section = config.environment
    return environment_plugin(section.plugin).make(section.name, section.options, config.actor.envs_per_group)


def served_rows(config: RunConfig) -> int:
    """Return the rows of a batch as a run serves them: half of the environments while the other half steps."""
    if config.mode == "lockstep":
        return config.local_environments
    return min(max(1, config.local_environments // 2), config.serving.max_batch_rows)


def _with_room(config: RunConfig) -> RunConfig:
    """Return the configuration with a queue for all unrolls of a batch of rows.

    They fill at once, and where one thread does everything nobody trains while one of them waits for room.
    """
    call = config.training.call_unrolls
    batches = -(-served_rows(config) // (call if config.replay is None else config.replay.chunk_unrolls(call)))
    queue = max(config.experience.queue_batches, batches)
    return config.model_copy(update={"experience": config.experience.model_copy(update={"queue_batches": queue})})


def _fill(batch: BatchRows, recorded: StepColumns, rows: int) -> None:
    for target, source in zip(flat_columns(batch.columns), flat_columns(recorded), strict=True):
        target[:rows] = np.resize(source, (rows, *source.shape[1:]))


def _no_hooks() -> Hooks:
    return Hooks(
        submit=lambda batch: None,
        expel=lambda slots, epochs: None,
        answer=lambda batch, actions, row_bytes: None,
        episodes=lambda episodes: None,
        updated=lambda report: None,
        save=lambda snapshot: None,
        run_state=dict,
    )
