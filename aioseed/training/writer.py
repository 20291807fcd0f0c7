"""Write checkpoints beside training: a snapshot is handed over, and whatever happens to it, training goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from aioseed.errors import AioseedError, CheckpointError, SaveFailed
from aioseed.telemetry.counters import Metrics
from aioseed.training.store import CheckpointStore, Snapshot

log = logging.getLogger("aioseed.training")

STILL_WRITING_S = 60.0
"""After so long a wait for the last checkpoint one hears of it, again and again."""


class CheckpointReport(NamedTuple):
    """Report one attempt to save."""

    step: int
    path: Path | None  # None when it failed
    error: AioseedError | None
    duration_s: float


def checkpoint_thread() -> Executor:
    """Return the executor that `CheckpointWriter` wants outside of simulations: one named thread."""
    return ThreadPoolExecutor(1, "aioseed-checkpoint")


class CheckpointWriter:
    """Save snapshots one at a time on an executor.

    At most one waits while another is written; a newer one takes the place of the one that waits. Thread: any thread
    submits, `finish` is for when training has ended.
    """

    def __init__(
        self,
        store: CheckpointStore,
        generation: int,
        executor: Executor,
        metrics: Metrics,
        on_report: Callable[[CheckpointReport], None] = lambda report: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing to write.

        Args:
            store: Where to.
            generation: Of this process, from `RunDirectory.next_generation`.
            executor: Where writing happens; one thread is enough. The caller shuts it down, after `finish`.
            metrics: Counts ``checkpoints/saved``, ``checkpoints/failed`` and ``checkpoints/superseded``.
            on_report: Called after every attempt, on the executor's thread.
            clock: Monotonic time in seconds.
        """
        self._store = store
        self._generation = generation
        self._executor = executor
        self._metrics = metrics
        self._on_report = on_report
        self._clock = clock
        self._idle = threading.Condition()
        self._writing = False
        self._pending: Snapshot | None = None
        self._last: CheckpointReport | None = None

    @property
    def last(self) -> CheckpointReport | None:
        """Return the report of the newest attempt, None before the first."""
        return self._last

    def submit(self, snapshot: Snapshot) -> None:
        """Save `snapshot` in the background. Never blocks; failures are reported and counted, never raised."""
        with self._idle:
            if self._pending is not None:
                self._pending.release(False)
                self._metrics.counter("checkpoints/superseded").add()
            self._pending = snapshot
            if self._writing:
                return
            self._writing = True
        self._executor.submit(self._write_all)

    def finish(self, snapshot: Snapshot) -> Path:
        """Save the last snapshot of a run, wait for it and return its directory. Blocks: not for the event loop.

        It takes as long as it takes: with replay in it a checkpoint may have any size, and one may be under way.

        Raises:
            CheckpointError: It could not be saved.
        """
        self.submit(snapshot)
        with self._idle:
            while not self._idle.wait_for(lambda: not self._writing, STILL_WRITING_S):
                log.warning("the last checkpoint is still being written")
        report = self._last
        assert report is not None, "something was written"
        if report.error is not None:
            raise report.error
        if report.path is None:
            raise AssertionError("a save without an error has a path")
        return report.path

    def _write_all(self) -> None:
        while True:
            with self._idle:
                snapshot, self._pending = self._pending, None
                if snapshot is None:
                    self._writing = False
                    self._idle.notify_all()
                    return
            self._last = self._save(snapshot)
            self._on_report(self._last)

    def _save(self, snapshot: Snapshot) -> CheckpointReport:
        began_s = self._clock()
        path: Path | None = None
        error: AioseedError | None = None
        try:
            path = self._store.save(snapshot, self._generation)
        except CheckpointError as failure:
            error = failure
        except Exception as failure:  # nobody awaits this thread: whatever went wrong goes into the report
            error = SaveFailed(f"checkpoint {snapshot.step} could not be saved: {failure!r}", path="")
            error.__cause__ = failure
        snapshot.release(error is None)
        self._metrics.counter("checkpoints/failed" if error else "checkpoints/saved").add()
        return CheckpointReport(snapshot.step, path, error, self._clock() - began_s)
