"""What each stage of training costs alone, in processor time for one environment step, with a preset's own shapes.

Two cores that did nothing but these stages would train ``2 / sum of costs`` steps a second: the limit that a run is
compared with. Everything else (sockets, sessions, threads that wait for one another) is the price of the road.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aioseed.host.config import RunConfig
from aioseed.host.runtime import Hooks, Runtime, build_runtime
from aioseed.plugins import environment_plugin
from aioseed.serving.handshake import Contract
from aioseed.serving.inference import Leased
from aioseed.serving.intake import BatchRows, ClosedBatch
from aioseed.serving.rule import Close
from aioseed.telemetry.counters import Metrics
from aioseed.types import FIRST, StepColumns
from aioseed.wire.columns import StepLayout, flat_columns

MIN_CALLS = 3
"""Calls of a stage that are measured at least, however long they take."""


class StageCosts(NamedTuple):
    """Hold processor seconds for one environment step."""

    environment_s: float
    act_s: float
    assembly_s: float
    train_s: float

    @property
    def total_s(self) -> float:
        """Return the sum."""
        return sum(self)

    def limit_steps_per_s(self, cores: int) -> float:
        """Return what `cores` cores could train if there were nothing else to do."""
        return cores / self.total_s

    def figures(self) -> dict[str, float]:
        """Return the costs as they are printed, in nanoseconds for a step."""
        return {name.removesuffix("_s") + "_ns": round(value * 1e9, 2) for name, value in self._asdict().items()}


def measure_stages(config: RunConfig, contract: Contract, seconds: float) -> StageCosts:
    """Build everything as a learner does and measure stage by stage, about `seconds` in all. Thread: any one.

    Raises:
        AioseedError: Something cannot be built, or the environment failed.
    """
    rows, environment_s = _environment(config, contract, seconds / 3)
    config = _with_room(config)
    runtime = build_runtime(config, contract, 1, None, Metrics(), _no_hooks())
    pipeline = _Pipeline(config, runtime, rows)
    act_s, assembly_s, train_s = pipeline.measure(seconds * 2 / 3)
    return StageCosts(environment_s, act_s, assembly_s, train_s)


def _environment(config: RunConfig, contract: Contract, seconds: float) -> tuple[StepColumns, float]:
    """Return rows as the environments write them, and what one step of one environment costs."""
    count = config.actor.envs_per_group
    plugin = environment_plugin(config.environment.plugin)
    environment = plugin.make(config.environment.name, config.environment.options, count)
    try:
        columns = StepLayout(contract.spec.observation, len(contract.metrics)).allocate(count)
        environment.reset(np.arange(count), list(range(count)), columns)
        action = contract.spec.action.array
        actions = np.zeros((count, *action.shape), action.numpy_dtype)
        environment.step(actions, columns)
        cost_s = _cost_s(lambda: environment.step(actions, columns), seconds) / count
    finally:
        environment.close()
    return columns, cost_s


def _served_rows(config: RunConfig) -> int:
    """Return the rows of a batch as a run serves them: half of the environments while the other half steps."""
    if config.mode == "lockstep":
        return config.local_environments
    return min(max(1, config.local_environments // 2), config.serving.max_batch_rows)


def _with_room(config: RunConfig) -> RunConfig:
    """Return the configuration with a queue for all unrolls of a batch of rows.

    They fill at once, and here nobody trains while one of them waits for room.
    """
    call = config.training.call_unrolls
    batches = -(-_served_rows(config) // (call if config.replay is None else config.replay.chunk_unrolls(call)))
    queue = max(config.experience.queue_batches, batches)
    return config.model_copy(update={"experience": config.experience.model_copy(update={"queue_batches": queue})})


class _Pipeline:
    """Drive a runtime's inference and training in one thread, with rows that were recorded."""

    def __init__(self, config: RunConfig, runtime: Runtime, recorded: StepColumns) -> None:
        self._runtime = runtime
        self._rows = _served_rows(config)
        self._batch_rows = runtime.intake.pool.take()
        self._slots = np.arange(self._rows)
        _fill(self._batch_rows, recorded, self._rows)
        runtime.engine.handle(Leased(self._slots, False))
        self._train_cpu_s = 0.0
        self._train_calls = 0
        self._trained_before = 0

    def measure(self, seconds: float) -> tuple[float, float, float]:
        """Return what acting, assembly and training cost for one row."""
        runtime = self._runtime
        self._until(1, 0.0)  # the first call of everything is not like the others
        times = runtime.engine.times
        act_s, append_s, rows, cpu_s = times.act_s, times.append_s, times.rows, 0.0
        self._train_cpu_s, self._train_calls = 0.0, 0
        self._trained_before = runtime.loop.summary().trained_transitions
        cpu_s = self._until(MIN_CALLS, seconds)
        act_s, append_s, rows = times.act_s - act_s, times.append_s - append_s, times.rows - rows
        # The engine measures by the clock; what it took of the processor is shared out in the same proportion.
        per_row_s = cpu_s / rows / max(act_s + append_s, 1e-12)
        trained = runtime.loop.summary().trained_transitions - self._trained_before
        return act_s * per_row_s, append_s * per_row_s, self._train_cpu_s / max(trained, 1)

    def _until(self, train_calls: int, seconds: float) -> float:
        """Serve and train until so many updates were made and so much time was spent; return inference's share."""
        until_s, cpu_s = time.monotonic() + seconds, 0.0
        while self._train_calls < train_calls or time.monotonic() < until_s:
            began_s = time.process_time()
            self._runtime.engine.handle(self._next_batch())
            cpu_s += time.process_time() - began_s
            while self._runtime.source.ready:
                began_s = time.process_time()
                self._runtime.loop.step(0.0)
                self._train_cpu_s += time.process_time() - began_s
                self._train_calls += 1
        return cpu_s

    def _next_batch(self) -> ClosedBatch:
        columns = self._batch_rows.columns
        columns.sequence[: self._rows] += np.uint32(1)
        columns.flags[: self._rows][columns.sequence[: self._rows] > 0] &= ~FIRST
        # The engine gives the columns back to the pool, from which nobody else takes any.
        epochs = columns.epoch[: self._rows].copy()
        return ClosedBatch(self._batch_rows, self._rows, [], self._slots, epochs, b"", 0, 0.0, 0.0, Close.ALL)


def _fill(batch: BatchRows, recorded: StepColumns, rows: int) -> None:
    columns = batch.columns
    for target, source in zip(flat_columns(columns), flat_columns(recorded), strict=True):
        target[:rows] = np.resize(source, (rows, *source.shape[1:]))
    columns.slot[:rows] = np.arange(rows)
    columns.epoch[:rows] = 1
    columns.sequence[:rows] = np.uint32(2**32 - 1)  # the first batch makes it 0
    columns.flags[:rows] = FIRST


def _cost_s(call: Callable[[], None], seconds: float) -> float:
    """Return the processor time of one call, over at least `MIN_CALLS` and about `seconds`."""
    until_s, calls, began_s = time.monotonic() + seconds, 0, time.process_time()
    while calls < MIN_CALLS or time.monotonic() < until_s:
        call()
        calls += 1
    return (time.process_time() - began_s) / calls


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
