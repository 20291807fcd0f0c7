"""When the event loop looks at the open batch, and how its answers come back: the timer around `Intake`."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

from aioseed.serving.intake import ClosedBatch, Intake
from aioseed.serving.meters import Meters


class Batching:
    """Poll the intake when something has come, when a batch was answered and when time alone closes one.

    Thread: the event loop alone, but for `answer_from`, which inference calls.

    Args:
        clock: Time in seconds that agrees with the loop's timers.
        answered: Called after each batch was answered.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        intake: Intake,
        meters: Meters,
        clock: Callable[[], float],
        answered: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._intake = intake
        self._meters = meters
        self._time = clock
        self._answered = answered
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._poll_due = False
        self._seen_rows = 0  # of the open batch, when the turn before this one was over
        self._polling = False
        self._sending_s: float | None = None  # of a batch that the loop served itself since it began to poll
        self._held_back = False

    def poll_soon(self) -> None:
        """Poll after all messages of this turn of the loop, and again after each turn that brings further ones."""
        if not self._poll_due:
            self._poll_due = True
            self._loop.call_soon(self._poll_turn)

    def poll(self, now_s: float, *, arriving: bool = False) -> None:
        """Close the open batch if the rule says so, else see that it is looked at again when time alone closes it.

        A batch that the loop serves itself is answered from within, as soon as its actions are there: what else
        serving it takes is done while the actors step.
        """
        self._polling, self._sending_s = True, None
        try:
            self._intake.poll(now_s, arriving=arriving)
        finally:
            self._polling = False
        if self._sending_s is not None:
            # Without what sending takes: it is the same for one batch and for two.
            self._intake.served(self._time() - now_s - self._sending_s)
        if arriving:
            return  # it is looked at again at once
        due_s = self._intake.due_at_s()
        if due_s is None or due_s >= self._timer_s:
            return  # a timer that is set goes off early enough; looking again then is cheaper than setting it anew
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = self._loop.call_at(due_s, self._due)

    def answer_from(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        """Hand the actions of a batch to the event loop, which sends them after what it does now. Thread: any."""
        if threading.get_ident() == self._thread:
            if self._polling and not self._held_back:
                began_s = self._time()
                self._send(batch, actions, row_bytes)
                self._sending_s = self._time() - began_s
                return
            self._held_back = False
            self._loop.call_soon(self._answer, batch, actions, row_bytes)
        else:
            self._loop.call_soon_threadsafe(self._answer, batch, actions, row_bytes)

    def hold_back(self) -> None:
        """Send the next actions after what the loop was told to do before, even those of a batch that it serves itself.

        Elsewhere than in the loop's own thread they are sent so anyway.
        """
        self._held_back = threading.get_ident() == self._thread

    def _poll_turn(self) -> None:
        rows = self._intake.waiting_rows
        arriving, self._seen_rows = rows > self._seen_rows, rows
        self.poll(self._time(), arriving=arriving)
        if arriving and self._intake.waiting_rows == rows:
            self._loop.call_soon(self._poll_turn)
        else:
            self._poll_due, self._seen_rows = False, 0

    def _due(self) -> None:
        self._timer, self._timer_s = None, math.inf
        self.poll(self._time())

    def _answer(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        self._intake.served(self._time() - batch.closed_s)
        self._send(batch, actions, row_bytes)
        self.poll(self._time())

    def _send(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        now_s = self._time()
        self._intake.answer(batch, actions, row_bytes, now_s)
        self._meters.answered(batch, now_s)
        self._answered()
