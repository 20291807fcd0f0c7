"""Turn the counters of the rooms into one `Progress` a second."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aioseed.experience.queue import QueueStatistics
from aioseed.host.config import RunConfig
from aioseed.host.events import Progress
from aioseed.host.runtime import Runtime
from aioseed.serving.session import Afar
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.quantiles import Quantiles
from aioseed.telemetry.verdict import RunShares, cycle_ms, explain
from aioseed.training.progress import TrainingReport

UNKNOWN = Afar(math.nan, math.nan)


class _Mark(NamedTuple):
    at_s: float
    accepted: int
    trained: int
    training_s: float
    inference_s: float
    loop_s: float
    queue: QueueStatistics
    latency: Quantiles
    rows: Quantiles


class Statistics:
    """Make reports of a run; rates and quantiles are over the time since the report before.

    Thread: the event loop. Figures of other threads are read without a lock: each is one number with one writer.
    """

    def __init__(self, config: RunConfig, runtime: Runtime, metrics: Metrics, now_s: float) -> None:
        self._config = config
        self._runtime = runtime
        self._metrics = metrics
        self._began_s = now_s
        self._latency = metrics.quantiles("serving/action_latency_ms", low=1e-3, high=1e5)
        self._rows = metrics.quantiles("serving/batch_rows", low=1.0, high=1e5)
        self._last = self._mark(now_s)

    def progress(self, now_s: float, report: TrainingReport | None, actors: int, afar: Afar = UNKNOWN) -> Progress:
        """Return where the run stands."""
        before, now = self._last, self._mark(now_s)
        self._last = now
        elapsed_s = max(now.at_s - before.at_s, 1e-9)
        ledger, episodes = self._runtime.ledger.snapshot(), self._runtime.episodes
        latency, rows = now.latency.since(before.latency), now.rows.since(before.rows)
        environments = self._runtime.table.leased
        env_steps_per_s = (now.accepted - before.accepted) / elapsed_s
        shares = RunShares(
            environments,
            (now.training_s - before.training_s) / elapsed_s,
            (now.inference_s - before.inference_s) / elapsed_s,
            (now.queue.blocked_s - before.queue.blocked_s) / elapsed_s,
            (now.loop_s - before.loop_s) / elapsed_s,
            latency.p50,
            cycle_ms(environments, env_steps_per_s),
            afar.round_trip_ms,
            afar.stepping_share,
        )
        environment = {f"environment/{name}": mean for name, mean in episodes.metric_means.items()}
        return Progress(
            env_steps=ledger.accepted,
            trained_steps=ledger.trained,
            evaluated_steps=ledger.evaluated,
            held_steps=ledger.on_the_way,
            replay_steps=ledger.replay,
            dropped=dict(ledger.dropped),
            lost_after_checkpoint=ledger.lost_after_checkpoint,
            env_steps_per_s=env_steps_per_s,
            trained_steps_per_s=(now.trained - before.trained) / elapsed_s,
            return_mean=episodes.return_mean,
            evaluation_return_mean=episodes.evaluation_return_mean,
            episodes=episodes.episodes,
            policy_lag=report.policy_lag_p50 if report else 0.0,
            batch_rows=rows.p50,
            action_latency_ms=latency.p50,
            environments=environments,
            actors=actors,
            policy_version=self._runtime.board.current().version,
            wall_s=now_s - self._began_s,
            share_done=self._share_done(ledger.trained),
            verdict=explain(shares),
            shares=shares,
            metrics=(dict(report.metrics) if report else {}) | environment,
        )

    def _share_done(self, trained: int) -> float | None:
        total = self._config.training.total_steps
        return min(trained / total, 1.0) if total else None

    def _mark(self, now_s: float) -> _Mark:
        ledger = self._runtime.ledger.snapshot()
        summary, times = self._runtime.loop.summary(), self._runtime.engine.times
        queue = self._runtime.assembler.statistics()
        return _Mark(
            now_s,
            ledger.accepted,
            ledger.trained,
            summary.busy_s,
            times.act_s + times.append_s - queue.blocked_s,
            time.thread_time(),
            queue,
            self._latency.copy(),
            self._rows.copy(),
        )


def progress_values(progress: Progress) -> dict[str, float]:
    """Return the numbers of a report under the names that sinks write."""
    values = {
        "run/env_steps": float(progress.env_steps),
        "run/env_steps_per_s": progress.env_steps_per_s,
        "run/trained_steps_per_s": progress.trained_steps_per_s,
        "run/return_mean": progress.return_mean,
        "run/evaluation_return_mean": progress.evaluation_return_mean,
        "run/episodes": float(progress.episodes),
        "run/environments": float(progress.environments),
        "run/policy_version": float(progress.policy_version),
        "ledger/accepted": float(progress.env_steps),
        "ledger/consumed": float(progress.trained_steps - progress.replay_steps),
        "ledger/replay": float(progress.replay_steps),
        "ledger/evaluated": float(progress.evaluated_steps),
        "ledger/held": float(progress.held_steps + progress.replay_steps),
        "ledger/lost_after_checkpoint": float(progress.lost_after_checkpoint),
    }
    values.update({f"ledger/dropped_{reason}": float(count) for reason, count in progress.dropped.items()})
    values.update(progress.metrics)
    return values


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of named arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
