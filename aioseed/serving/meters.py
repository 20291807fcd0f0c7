"""What is measured of serving: latency, queue wait and fill of batches, and why they closed."""

from __future__ import annotations

import numpy as np

from aioseed.serving.intake import ClosedBatch
from aioseed.serving.rule import Close
from aioseed.telemetry.counters import Metrics

KEPT_MESSAGES = 1024
OBSERVE_EVERY_S = 0.1


class Meters:
    """Measure answered batches.

    Figures are kept for at most a tenth of a second, or until there are a thousand, and then observed together: a look
    into a histogram costs as much as answering a batch. Thread: the event loop alone.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._latency_ms = metrics.quantiles("serving/action_latency_ms", low=1e-3, high=1e5)
        self._wait_ms = metrics.quantiles("serving/batch_wait_ms", low=1e-3, high=1e5)
        self._rows = metrics.quantiles("serving/batch_rows", low=1.0, high=1e5)
        self._closes = {cause: metrics.counter(f"serving/close_{cause.value}") for cause in Close}
        self._latencies_s: list[float] = []
        self._waits_s: list[float] = []
        self._counts: list[int] = []
        self._due_s = 0.0

    def answered(self, batch: ClosedBatch, now_s: float) -> None:
        """Measure a batch whose answers were just sent."""
        self._closes[batch.cause].add()
        self._latencies_s += [now_s - segment[3] for segment in batch.segments]
        self._waits_s.append(batch.closed_s - batch.opened_s)
        self._counts.append(batch.count)
        if now_s >= self._due_s or len(self._latencies_s) >= KEPT_MESSAGES:
            self._due_s = now_s + OBSERVE_EVERY_S
            self.observe()

    def observe(self) -> None:
        """Put what is kept into the histograms."""
        self._latency_ms.observe_many(np.array(self._latencies_s) * 1e3)
        self._wait_ms.observe_many(np.array(self._waits_s) * 1e3)
        self._rows.observe_many(self._counts)
        self._latencies_s.clear()
        self._waits_s.clear()
        self._counts.clear()
