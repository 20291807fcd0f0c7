"""Who runs the engine of inference: a thread of its own, or the event loop itself while that thread rests.

Handing a batch to a thread and its answer back costs two switches at the interpreter's lock, more than a small network
takes. So the loop acts itself where that is cheap and cannot wait for anything; all else goes to the thread.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from aioseed.serving.intake import ClosedBatch
from aioseed.serving.processor import Follower

_WEIGHT = 1 / 16
"""Of the latest batch in the running mean of what one takes."""


class Leased(NamedTuple):
    """Tell the sink that slots are leased anew."""

    slots: np.ndarray
    evaluation: bool


class Released(NamedTuple):
    """Tell the sink that leases have ended."""

    slots: np.ndarray
    reason: str


Item: TypeAlias = ClosedBatch | Leased | Released


class Engine(Protocol):
    """Do what the items of the queue ask for: `InferenceEngine`, or what stands in for it in a measurement."""

    answering_s: float
    """Spent so far in handing answers over; where the loop acts, in sending them, which it has to do anyway."""

    def handle(self, item: Item, *, more: bool = False) -> None:
        """Do what one item asks for; some of it may be left until the next, where there are `more`."""

    def settle(self) -> None:
        """Do what was left."""

    def is_prompt(self, batch: ClosedBatch) -> bool:
        """Say whether `handle` is sure to wait for nobody: no other device, no training, no full queue."""


class InferenceThread:
    """Run an engine in a thread of its own, fed by one queue, or in the event loop while the thread rests.

    Items are handled one after the other in the order of `submit`, whoever handles them. The queue is bounded by what
    intake may have in flight. Thread: `submit` from the event loop alone, `stop` from any.

    Args:
        failed: Called once, with the exception that ended it, by whoever met it.
        follows: Whether the thread stays on the processor of the event loop.
        in_loop_s: The loop handles a batch itself while batches take less than this on average, s; 0 never does.
    """

    def __init__(
        self,
        engine: Engine,
        failed: Callable[[BaseException], None],
        *,
        follows: bool = False,
        in_loop_s: float = 0.0,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._engine = engine
        self._failed = failed
        self._follower = Follower(enabled=follows)
        self._in_loop_s = in_loop_s
        self._clock = clock
        self._takes_s = math.inf  # a batch, on average
        self._queued = 0  # items, written by the event loop
        self._done = 0  # items of these, written by the thread
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="aioseed-inference", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Handle one item at once where that is cheap, else queue it; never blocks."""
        if isinstance(item, ClosedBatch) and self._is_cheap and self._engine.is_prompt(item):
            self._handle_in_loop(item)
            return
        self._follower.lead()
        self._queued += 1
        self._queue.put(item)

    def stop(self, timeout_s: float) -> bool:
        """Finish what is queued, end the thread, and return False if it did not end within `timeout_s`."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def _is_cheap(self) -> bool:
        # Equal counts: the thread has finished everything, and only who asks could give it more.
        return self._takes_s < self._in_loop_s and self._done == self._queued

    def _handle_in_loop(self, batch: ClosedBatch) -> None:
        try:
            self._handle(batch, more=False)
        except BaseException as error:
            self._in_loop_s = 0.0
            self._queue.put(None)  # nothing is handled after a failure
            self._failed(error)

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                self._follower.follow()
                self._handle(item, more=not self._queue.empty())
                self._done += 1
            self._engine.settle()
        except BaseException as error:
            self._failed(error)

    def _handle(self, item: Item, *, more: bool) -> None:
        began_s, answering_s = self._clock(), self._engine.answering_s
        self._engine.handle(item, more=more)
        if isinstance(item, ClosedBatch):
            took_s = self._clock() - began_s - (self._engine.answering_s - answering_s)
            self._takes_s = took_s if math.isinf(self._takes_s) else self._takes_s + _WEIGHT * (took_s - self._takes_s)
