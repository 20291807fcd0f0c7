"""The source of unrolls as training sees it, with the run's own end built in."""

from __future__ import annotations

import threading

import numpy as np

from aioseed.host.config import StopConfig
from aioseed.telemetry.returns import EpisodeTracker
from aioseed.types import Settled, UnrollBatch, UnrollSource


class StoppingSource:
    """Hand batches over until the run's goal is reached (implements `UnrollSource`).

    The goal is looked at when a batch is taken, on the training thread: in lockstep mode inference rests at that
    moment, so that a run ends after the same update whatever the transport.

    Thread: training; `solved` may be read by any.
    """

    def __init__(self, source: UnrollSource, episodes: EpisodeTracker, goal: StopConfig) -> None:
        self._source = source
        self._episodes = episodes
        self._goal = goal
        self._stop: threading.Event | None = None
        self.solved = False

    def end_with(self, stop: threading.Event) -> None:
        """Set `stop` when the goal is reached."""
        self._stop = stop

    def take(self, timeout_s: float) -> UnrollBatch | None:
        """Return the next batch; None once the goal is reached."""
        if self._reached():
            self.solved = True
            if self._stop is not None:
                self._stop.set()
            return None
        return self._source.take(timeout_s)

    def settle(self, batch: UnrollBatch, finite: np.ndarray | None, priorities: np.ndarray | None) -> Settled:
        """Close the books on a batch."""
        return self._source.settle(batch, finite, priorities)

    def give_back(self, batch: UnrollBatch) -> None:
        """Return the columns for reuse."""
        self._source.give_back(batch)

    @property
    def ready(self) -> int:
        """Return the number of batches that wait."""
        return self._source.ready

    def _reached(self) -> bool:
        goal = self._goal.return_mean
        return (
            goal is not None
            and self._episodes.window_count >= self._goal.episodes
            and self._episodes.return_mean >= goal
        )
