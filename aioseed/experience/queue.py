"""The bounded queue of full batches, made of a fixed set of buffers that go round.

free -> being filled (inference) -> waiting -> lent (training) -> free. Nothing is allocated after the start. The bound
is the number of buffers: when none is free, inference waits, and so actions do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from aioseed.errors import AioseedError
from aioseed.experience.layout import UnrollBuffer, aligned_zeros, allocate_buffer
from aioseed.types import Allocate, UnrollBatch, UnrollLayout


class QueueStatistics(NamedTuple):
    """Hold what is measured of the queue."""

    ready: int  # batches that wait for training
    lent: int  # batches that training holds
    free: int  # buffers that wait to be filled
    put: int  # batches ever queued
    blocked: int  # times that inference had to wait for a free buffer
    blocked_s: float  # and for how long in all, waits that have ended


class UnrollQueue:
    """Hand full batches from inference to training. Thread: any; one fills, one takes."""

    def __init__(
        self,
        layout: UnrollLayout,
        batch_unrolls: int,
        queue_batches: int,
        *,
        zeros: Allocate = aligned_zeros,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # One more than may wait is being filled, and one more is with training.
        buffers = [allocate_buffer(layout, batch_unrolls, zeros) for _ in range(queue_batches + 2)]
        self._changed = threading.Condition()
        self._clock = clock
        self._free = deque(buffers)
        self._ready: deque[UnrollBuffer] = deque()
        self._lent: list[UnrollBuffer] = []
        self._closed = False
        self._put = 0
        self._blocked = 0
        self._blocked_s = 0.0

    def acquire(self) -> UnrollBuffer | None:
        """Return a free buffer to fill; blocks while there is none. None once the queue is closed."""
        with self._changed:
            if not self._free and not self._closed:
                self._blocked += 1
                began_s = self._clock()
                self._changed.wait_for(lambda: self._free or self._closed)
                self._blocked_s += self._clock() - began_s
            return None if self._closed else self._free.popleft()

    def put(self, buffer: UnrollBuffer) -> None:
        """Queue a full buffer. Never blocks, since it came from `acquire`."""
        with self._changed:
            self._ready.append(buffer)
            self._put += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> UnrollBatch | None:
        """Return the oldest full batch, or None after `timeout_s` without one or when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed, timeout_s)
            if not self._ready:
                return None
            buffer = self._ready.popleft()
            self._lent.append(buffer)
            return buffer.batch

    def give_back(self, batch: UnrollBatch) -> None:
        """Free the buffer of a batch that `take` returned.

        Raises:
            AioseedError: The batch is not lent: it was given back before, or is not one of this queue.
        """
        with self._changed:
            for place, buffer in enumerate(self._lent):
                if buffer.batch.columns is batch.columns:
                    self._free.append(self._lent.pop(place))
                    self._changed.notify_all()
                    return
        raise AioseedError("a batch was given back that is not lent")

    def close(self) -> None:
        """Wake everybody: nothing more can be filled, what waits can still be taken. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def waiting(self) -> list[UnrollBatch]:
        """Return the batches that wait, oldest first, without taking them."""
        with self._changed:
            return [buffer.batch for buffer in self._ready]

    def clear(self) -> list[UnrollBatch]:
        """Take back every batch that waits and return them, oldest first."""
        with self._changed:
            left = list(self._ready)
            self._ready.clear()
            self._free.extend(left)
            return [buffer.batch for buffer in left]

    @property
    def free(self) -> int:
        """Return the number of buffers that can be filled without waiting; only `acquire` makes it less."""
        return 0 if self._closed else len(self._free)

    @property
    def ready(self) -> int:
        """Return the number of batches that wait."""
        return len(self._ready)

    @property
    def batches_put(self) -> int:
        """Return the number of batches ever queued."""
        return self._put

    def statistics(self) -> QueueStatistics:
        """Return what is measured, as of one moment."""
        with self._changed:
            return QueueStatistics(
                len(self._ready), len(self._lent), len(self._free), self._put, self._blocked, self._blocked_s
            )
