"""Write the figures of a run, whatever the disk says: a full one costs figures, never training."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from aioseed.errors import RunDirectoryError
from aioseed.host.events import Trouble
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.sinks import MetricsSink

LATE_S = 10.0
"""A disk that takes longer for a line is told of."""


class Records:
    """Hand figures to sinks; a sink that fails is tried again with the next ones (Thread: one caller at a time).

    Args:
        sinks: Where to.
        metrics: Counts ``metrics/failed``, writes that failed.
    """

    def __init__(self, sinks: Sequence[MetricsSink], metrics: Metrics) -> None:
        self._sinks = sinks
        self._failed = metrics.counter("metrics/failed")
        self._failing: set[MetricsSink] = set()

    def write(self, step: int, values: Mapping[str, float]) -> list[Trouble]:
        """Record `values` as of environment step `step` in every sink that can, and return what a user should know.

        Of a sink that goes on failing that is said once. Blocks: not for the event loop.
        """
        troubles = []
        for sink in self._sinks:
            try:
                sink.write(step, values)
                self._failing.discard(sink)
            except RunDirectoryError as error:
                self._failed.add()
                if sink not in self._failing:
                    self._failing.add(sink)
                    troubles.append(Trouble(f"{error}; training goes on"))
        return troubles

    async def record(self, step: int, values: Mapping[str, float], late: Callable[[], None]) -> list[Trouble]:
        """Do as `write` in another thread, and call `late` once if that takes long: a disk of the network may hang.

        Safe to cancel: what is being written is then written to its end.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(self.write, step, values))
        try:
            done, _ = await asyncio.wait([writing], timeout=LATE_S)
            if not done:
                late()
            return await writing
        finally:
            writing.cancel()  # nobody waits for it any more; the thread ends by itself
