"""Measure a training run: what it trains, what it drops, what it waits for, and how near it is to its own limit."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aioseed.bench.pipeline import contract_of
from aioseed.bench.stages import StageCosts, measure_stages
from aioseed.errors import AioseedError
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Event, Finished, Progress, Ready
from aioseed.host.train import train
from aioseed.telemetry.verdict import RunShares, cycle_ms, explain

LIMIT_CORES = 2
WARM_UP_S = 2.0
"""Time after the start of training that is not measured: actors join, queues fill."""
REPORT_EVERY_S = 0.25
STAGES_S = 3.0
OVERRIDES = (
    "stop.return_mean=null",
    "training.total_steps=1000000000000",
    "telemetry.tensorboard=false",
    f"telemetry.every_s={REPORT_EVERY_S}",
)
"""So that the run lasts as long as it is measured."""


class Span(NamedTuple):
    """Hold the reports of the time that is measured, two or more, and what the sinks wrote with the first and last."""

    reports: tuple[Progress, ...]
    began_values: dict[str, float]
    ended_values: dict[str, float]

    @property
    def began(self) -> Progress:
        """Return the report that the time begins with."""
        return self.reports[0]

    @property
    def ended(self) -> Progress:
        """Return the report that the time ends with."""
        return self.reports[-1]

    @property
    def seconds(self) -> float:
        """Return the time between them."""
        return self.ended.wall_s - self.began.wall_s

    def per_s(self, field: str) -> float:
        """Return the rate of a count of `Progress`."""
        return float(getattr(self.ended, field) - getattr(self.began, field)) / self.seconds

    def share_of_time(self, name: str) -> float:
        """Return by how much a sum of seconds grew, as a share of the time."""
        return (self.ended_values.get(name, 0.0) - self.began_values.get(name, 0.0)) / self.seconds

    def median(self, field: str) -> float:
        """Return the median of a field of `Progress` over the reports in which it is a number, NaN without any."""
        values = [float(getattr(report, field)) for report in self.reports[1:]]
        return statistics.median([value for value in values if not math.isnan(value)] or [math.nan])

    def shares(self) -> RunShares:
        """Return what a verdict on all of the time rests on: one report looks back on a quarter of a second only."""
        ends_s = [report.wall_s for report in self.reports]
        means = np.average([report.shares for report in self.reports[1:]], axis=0, weights=np.diff(ends_s))
        _, training, inference, blocked, loop, *_ = means.tolist()
        last = self.ended.shares
        return last._replace(
            training_busy=training,
            inference_busy=inference,
            inference_blocked=blocked,
            loop_busy=loop,
            action_latency_ms=self.median("action_latency_ms"),
            cycle_ms=cycle_ms(last.environments, self.per_s("env_steps")),
        )

    def dropped_share(self) -> float:
        """Return dropped steps as a share of the accepted ones."""
        dropped = sum(self.ended.dropped.values()) - sum(self.began.dropped.values())
        return dropped / max(self.ended.env_steps - self.began.env_steps, 1)


class TrainResult(NamedTuple):
    """Hold a measured run."""

    span: Span
    stages: StageCosts
    finished: Finished

    def figures(self) -> dict[str, object]:
        """Return what is printed."""
        span, limit = self.span, self.stages.limit_steps_per_s(LIMIT_CORES)
        trained = span.per_s("trained_steps")
        return {
            "seconds": round(span.seconds, 3),
            "env_steps_per_s": round(span.per_s("env_steps"), 1),
            "trained_steps_per_s": round(trained, 1),
            "dropped_share": round(span.dropped_share(), 6),
            "policy_lag": span.median("policy_lag"),
            "learner_busy_share": round(span.share_of_time("training/busy_s"), 4),
            "learner_idle_share": round(span.share_of_time("training/idle_ready_s"), 4),
            "batch_rows_p50": round(span.median("batch_rows"), 1),
            "action_latency_ms_p50": round(span.median("action_latency_ms"), 4),
            "environments": span.ended.environments,
            "return_mean_100": self.finished.return_mean_100,
            "verdict": explain(span.shares()),
            "stages": self.stages.figures(),
            "limit_cores": LIMIT_CORES,
            "limit_steps_per_s": round(limit, 1),
            "share_of_limit": round(trained / limit, 4),
            "ledger_imbalance": self.finished.imbalance,
        }


class _Follower:
    """Collect the reports of a run and stop it when it was measured for long enough. Thread: the event loop."""

    def __init__(self, seconds: float) -> None:
        self.reports: list[Progress] = []
        self.stop = asyncio.Event()
        self._seconds = seconds

    def __call__(self, event: Event) -> None:
        if isinstance(event, Ready):
            gc.freeze()  # as `aioseed train` does
            loop = asyncio.get_running_loop()
            loop.call_later(WARM_UP_S + self._seconds + 2 * REPORT_EVERY_S, self.stop.set)
        elif isinstance(event, Progress):
            self.reports.append(event)

    def span(self, path: Path) -> Span:
        """Return the measured span, from the first report after the warm-up to the last before the end."""
        warm = [report for report in self.reports if report.wall_s >= WARM_UP_S]
        if len(warm) < 2:
            raise AioseedError("the run ended before it was measured")
        written = {values["step"]: values for values in map(json.loads, path.read_text().splitlines())}
        began, ended = (written.get(report.trained_steps, {}) for report in (warm[0], warm[-1]))
        return Span(tuple(warm), began, ended)


def bench_config(source: str, overrides: list[str]) -> RunConfig:
    """Return the configuration that is measured: that of `source` with `overrides`, without any end of its own.

    Raises:
        ConfigError: Names the path, the value and what was expected.
    """
    return load_config(source, [*overrides, *OVERRIDES])


async def measure_training(
    config: RunConfig, seconds: float, stop: asyncio.Event, *, stages_s: float = STAGES_S
) -> TrainResult:
    """Measure the stages, then a run of `seconds` seconds in a temporary directory. Safe to cancel.

    Args:
        stop: Set to end early; what was measured so far is then reported.
        stages_s: Time for the measurement of the stages.

    Raises:
        AioseedError: What ended the run, or that it ended before anything was measured.
    """
    contract = await contract_of(config)
    stages = await asyncio.to_thread(measure_stages, config, contract, stages_s)
    follower = _Follower(seconds)
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: follower.stop.set())
    with tempfile.TemporaryDirectory(prefix="aioseed-bench-") as folder:
        run_dir = Path(folder) / "run"
        try:
            finished = await train(config, run_dir=run_dir, stop=follower.stop, on_event=follower)
        finally:
            stopping.cancel()
        span = await asyncio.to_thread(follower.span, run_dir / "metrics.jsonl")
    return TrainResult(span, stages, finished)
