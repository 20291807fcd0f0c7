"""Where the training loop runs: on a thread of its own, or inline, one update at a time, in simulations."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from aioseed.errors import AioseedError, TrainingFailed
from aioseed.training.device import failure_said

Result = TypeVar("Result")
ResultCo = TypeVar("ResultCo", covariant=True)


class Job(Protocol[ResultCo]):
    """Work that ends by itself or when told to, at a point of its own choosing."""

    def run(self, stop: threading.Event) -> ResultCo:
        """Work until done or until `stop` is set."""

    def step(self, timeout_s: float) -> bool:
        """Do one piece; False if there was none within `timeout_s`."""

    def finish(self) -> ResultCo:
        """End the work after the last `step`."""


class BackgroundExecutor(Generic[Result]):
    """Run one job on one named thread. It is never cancelled half-way: `stop` asks, the job decides.

    Thread: the event loop calls everything.
    """

    def __init__(self, name: str = "aioseed-training") -> None:
        self._name = name
        self._stop = threading.Event()
        self._outcome: Future[Result] = Future()
        self._thread: threading.Thread | None = None

    def start(self, job: Job[Result]) -> None:
        """Start `job`.

        Raises:
            RuntimeError: One was started before.
        """
        if self._thread is not None:
            raise RuntimeError("the executor has a job already")
        # A thread that hangs in a foreign library must not keep the process alive; `result` reports it by then.
        self._thread = threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True)
        self._outcome.set_running_or_notify_cancel()
        self._thread.start()

    def stop(self) -> None:
        """Ask the job to end after the piece it is at. Returns at once. Idempotent."""
        self._stop.set()

    async def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the end of the job and return its result.

        Safe to cancel: the job goes on. Several callers get the same outcome. Pushes nobody back.

        Raises:
            AioseedError: The one that ended the job.
            TrainingFailed: Another exception ended it (chained), or `timeout_s` passed first.
        """
        try:
            # Cancelling this wait cancels nothing else: a future that is marked as running refuses.
            return await asyncio.wait_for(asyncio.wrap_future(self._outcome), timeout_s)
        except TimeoutError as error:
            raise TrainingFailed(f"thread {self._name} did not end within {timeout_s:g} s") from error

    def _work(self, job: Job[Result]) -> None:
        try:
            result = job.run(self._stop)
        except AioseedError as error:
            self._outcome.set_exception(error)
        except BaseException as error:  # whatever it is, the waiting loop must learn of it
            failure = TrainingFailed(f"thread {self._name} failed: {failure_said(error)}")
            failure.__cause__ = error
            self._outcome.set_exception(failure)
        else:
            self._outcome.set_result(result)


class InlineExecutor(Generic[Result]):
    """Run a job in the caller's thread, piece by piece, so that a simulation decides when training happens."""

    def __init__(self) -> None:
        self._job: Job[Result] | None = None
        self._stopped = False

    def start(self, job: Job[Result]) -> None:
        """Take `job`; nothing runs until `step`.

        Raises:
            RuntimeError: One was started before.
        """
        if self._job is not None:
            raise RuntimeError("the executor has a job already")
        self._job = job

    def step(self) -> bool:
        """Do one piece of work if there is any, without waiting; False if there was none or `stop` was called."""
        return self._job is not None and not self._stopped and self._job.step(0.0)

    def stop(self) -> None:
        """Do no further piece. Idempotent."""
        self._stopped = True

    async def result(self, timeout_s: float | None = None) -> Result:
        """End the job and return its result at once.

        Raises:
            RuntimeError: No job was started.
        """
        if self._job is None:
            raise RuntimeError("the executor has no job")
        return self._job.finish()
