"""The body of the training thread: take a batch, update, settle it with its source, publish, save.

Everything between two updates happens here, on one thread, and the stop flag is read there and nowhere else: an update
is never cancelled half-way. `TrainingLoop.step` is the same work in single pieces, for simulations.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from aioseed.agents.agent import LearnerState, PyTree, parameters_of
from aioseed.errors import TrainingFailed
from aioseed.specs import Json
from aioseed.telemetry.counters import Counter, Gauge, Metrics
from aioseed.telemetry.ledger import Ledger
from aioseed.telemetry.quantiles import Quantiles
from aioseed.training.config import TrainingConfig
from aioseed.training.device import failure_said, wait_until_ready
from aioseed.training.inspection import FirstUpdates
from aioseed.training.progress import CheckpointCadence, Progress, TimeSpent, TrainingReport, TrainingSummary
from aioseed.training.publish import PolicyBoard
from aioseed.training.store import Snapshot
from aioseed.training.trees import flatten_arrays
from aioseed.training.update import TrainState, UpdateOutput, UpdateProgram
from aioseed.types import SavedReplay, UnrollBatch, UnrollSource

log = logging.getLogger("aioseed.training")

POLL_S = 0.1
"""Longest time for which the stop flag is not read while no batch comes."""
LAG_SAMPLES = 256
"""Rows of a call whose policy lag is looked at; more would cost small updates a noticeable share."""


class TrainingPorts(NamedTuple):
    """Name what the loop talks to."""

    source: UnrollSource
    board: PolicyBoard
    ledger: Ledger
    metrics: Metrics
    save: Callable[[Snapshot], None] = lambda snapshot: None
    """Takes a snapshot when one is due and returns at once, as `CheckpointWriter.submit` does."""
    on_update: Callable[[TrainingReport], None] = lambda report: None
    """Called on the training thread, at most every `report_every_s`; must return at once."""
    run_state: Callable[[], Mapping[str, Json]] = dict
    """Returns what else `state.json` of a checkpoint holds: configuration digest, seeds, totals of other rooms."""
    goal_reached: Callable[[], bool] = lambda: False
    """Says whether the run has reached its goal; asked after each update, before its policy is published."""
    save_replay: Callable[[], SavedReplay | None] = lambda: None
    """Returns what a checkpoint keeps of replay, None for nothing."""
    published: Callable[[LearnerState], PyTree] = parameters_of
    """Returns what is published of the state: `Agent.published`."""


class _Telemetry(NamedTuple):
    updates: Counter
    skipped_updates: Counter
    busy_s: Gauge
    idle_ready_s: Gauge
    waiting_s: Gauge
    policy_lag: Quantiles

    @classmethod
    def of(cls, metrics: Metrics) -> _Telemetry:
        return cls(
            updates=metrics.counter("training/updates"),
            skipped_updates=metrics.counter("training/skipped_updates"),
            busy_s=metrics.gauge("training/busy_s"),
            idle_ready_s=metrics.gauge("training/idle_ready_s"),
            waiting_s=metrics.gauge("training/waiting_s"),
            policy_lag=metrics.quantiles("training/policy_lag_updates", low=0.5, high=1e6),
        )


class TrainingLoop:
    """Train until told to stop or until the run is over (a `Job` of `aioseed.training.executor`).

    Thread: one, from `run` or the first `step` on. Others may call `snapshot` and `summary` once that has ended.
    """

    def __init__(
        self,
        program: UpdateProgram,
        state: TrainState,
        ports: TrainingPorts,
        config: TrainingConfig,
        *,
        progress: Progress | None = None,
        report_every_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over `state`, whose buffers the first update will use up.

        Args:
            program: The compiled update.
            state: What to begin with; nobody else may hold its buffers.
            ports: What the loop talks to.
            config: The section `training`; every batch must hold ``config.call_unrolls`` unrolls.
            progress: Counters of the checkpoint that the run goes on from.
            report_every_s: Shortest time between two calls of `on_update`; 0 reports every update.
            clock: Monotonic time in seconds.
        """
        self._program = program
        self._state = state
        self._ports = ports
        self._config = config
        self._progress = progress or Progress()
        self._report_every_s = report_every_s
        self._clock = clock
        self._time = TimeSpent()
        self._goal_reached = False
        self._first_updates = FirstUpdates()
        self._why_skipped = ""
        self._mark_s = clock()  # end of the last piece of time that was accounted for
        self._report_due_s = self._mark_s
        self._cadence = CheckpointCadence(config.checkpoint, self._mark_s, self._progress.version)
        self._telemetry = _Telemetry.of(ports.metrics)

    def run(self, stop: threading.Event) -> TrainingSummary:
        """Train until `stop` is set or the run is over, then wake all who wait for a policy.

        Raises:
            TrainingFailed: Too many updates in a row were not finite.
        """
        self._mark_s = self._clock()
        try:
            while not (stop.is_set() or self.is_over):
                self.step(POLL_S)
        finally:
            self._ports.board.close()
        return self.summary()

    def step(self, timeout_s: float) -> bool:
        """Make one call of the update; False if no batch came within `timeout_s` or the run is over.

        Raises:
            TrainingFailed: Too many updates in a row were not finite.
        """
        if self.is_over:
            return False
        ready = self._ports.source.ready > 0
        batch = self._ports.source.take(timeout_s)
        if ready:
            self._time.idle_ready_s += self._lap_s()
        else:
            self._time.waiting_s += self._lap_s()
        if batch is None:
            return False
        output, finite = self._update(batch)
        call_s = self._lap_s()
        self._time.busy_s += call_s
        self._time.longest_call_s = max(self._time.longest_call_s, call_s)
        self._settle(batch, output, finite)
        lag = self._policy_lag(batch)
        for sentence in self._first_updates.observe(batch.columns, output.inspection, finite):
            log.warning("%s", sentence)
        self._ports.source.give_back(batch)
        self._progress.version += len(finite)
        self._goal_reached = self._ports.goal_reached()
        published = self._ports.published(self._state.learner)
        self._ports.board.publish(published, self._progress.version, last=self.is_over)
        self._observe(output, finite, lag)
        if self._cadence.due(self._clock(), self._progress.version):
            self._ports.save(self.snapshot())
        self._fail_if_nonfinite()
        return True

    def finish(self) -> TrainingSummary:
        """End a loop that was driven by `step`: wake all who wait for a policy. Idempotent."""
        self._ports.board.close()
        return self.summary()

    @property
    def is_over(self) -> bool:
        """Say whether the goal is reached, or as many transitions were taken as the configuration asks for."""
        total = self._config.total_steps
        return self._goal_reached or (total is not None and self._progress.taken_transitions >= total)

    @property
    def longest_call_s(self) -> float:
        """Return how long a call of the update has taken at most. Thread: any."""
        return self._time.longest_call_s

    def snapshot(self) -> Snapshot:
        """Return a copy of all that a checkpoint holds, as of the last finished update.

        Raises:
            TrainingFailed: The last update broke off and took the state with it.
        """
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._state)):
            raise TrainingFailed("the training state was lost in an update that broke off")
        state: dict[str, Json] = dict(self._ports.run_state())
        state["training"] = self._progress.to_json()
        state["ledger"] = self._ports.ledger.to_json()
        arrays, replay = flatten_arrays(self._state), self._ports.save_replay()
        if replay is None:
            return Snapshot(self._progress.version, arrays, state)
        state["replay"] = replay.state
        arrays |= {f"replay/{name}": array for name, array in replay.arrays.items()}
        return Snapshot(self._progress.version, arrays, state, replay.segments, replay.release)

    def summary(self) -> TrainingSummary:
        """Return what was done so far."""
        progress, spent = self._progress, self._time
        return TrainingSummary(
            version=progress.version,
            updates=progress.version - progress.skipped_updates,
            skipped_updates=progress.skipped_updates,
            trained_transitions=progress.trained_transitions,
            busy_s=spent.busy_s,
            idle_ready_s=spent.idle_ready_s,
            waiting_s=spent.waiting_s,
        )

    def _update(self, batch: UnrollBatch) -> tuple[UpdateOutput, np.ndarray]:
        """Run the program and wait for it: until an output is ready, JAX may read the batch's own memory."""
        try:
            self._state, output = self._program(self._state, batch.columns)
            wait_until_ready(self._state)
        except Exception as error:
            self._ports.source.settle(batch, None, None)
            self._ports.source.give_back(batch)
            raise TrainingFailed(f"an update broke off: {failure_said(error)}") from error
        return output, np.array(output.finite)

    def _settle(self, batch: UnrollBatch, output: UpdateOutput, finite: np.ndarray) -> None:
        # Each step once, by the first pass over it.
        settled = self._ports.source.settle(batch, finite[: self._config.updates_per_call], _priorities(output))
        self._progress.trained_transitions += settled.trained
        self._progress.taken_transitions += settled.trained + settled.skipped

    def _policy_lag(self, batch: UnrollBatch) -> np.ndarray:
        """Return for some rows by how many optimiser steps the policy that acted was older than the one updated.

        The one that the first pass updated: later passes are as far off-policy as they make themselves.
        """
        versions = batch.columns.policy_version
        # Odd, so that the samples do not all fall into one column where the number of unrolls is a power of two.
        every = versions.size // LAG_SAMPLES | 1
        step_of = np.arange(0, versions.size, every) % versions.shape[1] // self._config.batch_unrolls
        lag: np.ndarray = self._progress.version + step_of - versions.reshape(-1)[::every]
        in_32_bits: np.ndarray = lag.astype(np.int32)  # as the columns hold versions
        return in_32_bits

    def _observe(self, output: UpdateOutput, finite: np.ndarray, lag: np.ndarray) -> None:
        spent, progress, first_pass = self._time, self._progress, finite[: self._config.updates_per_call]
        skipped = int(np.count_nonzero(~finite))
        progress.skipped_updates += skipped
        if skipped:
            self._why_skipped = output.inspection.said(int(np.flatnonzero(~finite)[-1]))
        if skipped and not progress.nonfinite_in_a_row:  # once for those that follow one another
            log.warning(
                "an update was not finite and is skipped%s: %s",
                "" if first_pass.all() else ", its steps are dropped (nonfinite_update)",
                self._why_skipped,
            )
        progress.nonfinite_in_a_row = _nonfinite_in_a_row(finite, len(first_pass), progress.nonfinite_in_a_row)
        self._telemetry.policy_lag.observe_many(lag)
        self._telemetry.updates.add(len(finite) - skipped)
        self._telemetry.skipped_updates.add(skipped)
        self._telemetry.busy_s.set(spent.busy_s)
        self._telemetry.idle_ready_s.set(spent.idle_ready_s)
        self._telemetry.waiting_s.set(spent.waiting_s)
        if self._mark_s >= self._report_due_s:
            self._report_due_s = self._mark_s + self._report_every_s
            self._ports.on_update(self._report(output, finite, lag))

    def _report(self, output: UpdateOutput, finite: np.ndarray, lag: np.ndarray) -> TrainingReport:
        values = output.metrics.to_floats() if finite.any() else {}
        progress, spent = self._progress, self._time
        return TrainingReport(
            version=progress.version,
            trained_transitions=progress.trained_transitions,
            skipped_updates=progress.skipped_updates,
            metrics=values,
            policy_lag_p50=float(np.median(lag)),
            policy_lag_max=float(lag.max()),
            busy_s=spent.busy_s,
            idle_ready_s=spent.idle_ready_s,
            waiting_s=spent.waiting_s,
        )

    def _fail_if_nonfinite(self) -> None:
        bound = self._config.max_nonfinite_updates
        if self._progress.nonfinite_in_a_row >= bound:
            raise TrainingFailed(
                f"the last {self._progress.nonfinite_in_a_row} updates were not finite and were skipped "
                f"(training.max_nonfinite_updates is {bound}): {self._why_skipped}; the parameters are those of the "
                "last finite one"
            )

    def _lap_s(self) -> float:
        """Return the seconds since the last call."""
        before_s, self._mark_s = self._mark_s, self._clock()
        return self._mark_s - before_s


def _nonfinite_in_a_row(finite: np.ndarray, first_pass: int, before: int) -> int:
    """Return the length of the run of non-finite steps at the end of the first pass, continued from `before`.

    What spoils a step spoils one in each later pass, which is no news; a finite one there ends the run.
    """
    if finite[first_pass:].any():
        return 0
    last_finite = np.flatnonzero(finite[:first_pass])
    return before + first_pass if not last_finite.size else first_pass - 1 - int(last_finite[-1])


def _priorities(output: UpdateOutput) -> np.ndarray | None:
    """Return the new priorities that the agent's loss gave, if any, as a copy in host memory."""
    named = output.aux if isinstance(output.aux, dict) else {}
    return np.array(named["priorities"]) if "priorities" in named else None
