"""The thread of one group: builds its environments, steps them, closes them, and lets nothing but reports out.

Work goes to the thread through a `queue.SimpleQueue` and comes back through `call_soon_threadsafe`: the event loop
never waits for an environment, and answers PINGs while one hangs.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from aioseed.actor.group import Job, Work, perform
from aioseed.errors import AioseedError, EnvironmentFailed
from aioseed.specs import check_servable
from aioseed.types import BatchEnvironment, EnvironmentMetric, EnvironmentSpec
from aioseed.wire.columns import StepLayout, StepMessage

Report = Callable[[Work | AioseedError], None]
"""Takes what came of a job, in the thread of the event loop."""


class Built(NamedTuple):
    """Describe the environments that a worker has built."""

    spec: EnvironmentSpec
    metrics: tuple[EnvironmentMetric, ...]
    message: StepMessage


class _Order(NamedTuple):
    job: Job
    report: Report


class Worker:
    """Own one group's environments in a daemon thread.

    A thread cannot be cancelled: one that hangs in an environment is left behind when `join` is given up, and a daemon
    does not keep the process alive. Thread: the event loop's, but for `_run` and what it calls.
    """

    def __init__(self, index: int, count: int, make: Callable[[int], BatchEnvironment]) -> None:
        self.index = index
        self.count = count
        self._make = make
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._built: asyncio.Future[Built] = self._loop.create_future()
        self._ended: asyncio.Future[AioseedError | None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=f"aioseed-environments-{index}", daemon=True)

    async def build(self) -> Built:
        """Start the thread and return once its environments are built. Safe to cancel; call once.

        Raises:
            EnvironmentFailed: An environment raised while it was built.
            UsageError: What the environment's maker found wrong with the request, or a space that cannot be served.
        """
        self._thread.start()
        return await asyncio.shield(self._built)

    def submit(self, job: Job, report: Report) -> None:
        """Hand over a job; `report` is called when it is done. In order; after an error every job fails with it."""
        self._orders.put(_Order(job, report))

    def stop(self) -> None:
        """Let the thread close its environments and end when it has done what it has. Idempotent."""
        self._orders.put(None)

    async def join(self) -> None:
        """Wait for the end of a stopped thread; bound it with a time-out. Safe to cancel.

        Raises:
            EnvironmentFailed: An environment raised while it was closed.
        """
        if self._thread.ident is None:
            return
        error = await asyncio.shield(self._ended)
        await asyncio.to_thread(self._thread.join)  # it has only to return
        if self._built.done():
            self._built.exception()  # told to `build`, whose caller may have been cancelled: do not warn of it
        if error is not None:
            raise error

    def _run(self) -> None:
        environment: BatchEnvironment | None = None
        error: AioseedError | None = None
        try:
            environment, built = self._build()
            self._tell(_resolve, self._built, built)
            self._obey(environment, built.message)
        except BaseException as raised:
            self._tell(_reject, self._built, _told(raised))
        finally:
            try:
                if environment is not None:
                    environment.close()
            except BaseException as raised:
                error = _told(raised)
            self._tell(_resolve, self._ended, error)

    def _build(self) -> tuple[BatchEnvironment, Built]:
        environment = self._make(self.count)
        try:
            spec, metrics = environment.spec, environment.metrics
            if environment.count != self.count:
                raise EnvironmentFailed(f"{self.count} environments were asked for, {environment.count} were made")
            check_servable(spec.observation, spec.action)
            message = StepMessage(StepLayout(spec.observation, len(metrics)), self.count)
        except BaseException:
            environment.close()
            raise
        return environment, Built(spec, metrics, message)

    def _obey(self, environment: BatchEnvironment, message: StepMessage) -> None:
        failure: AioseedError | None = None
        while (order := self._orders.get()) is not None:
            if failure is not None:  # the order was on its way when the environments failed
                self._tell(order.report, failure)
                continue
            try:
                work = perform(environment, message, order.job)
            except BaseException as raised:
                failure = _told(raised)
                self._tell(order.report, failure)
            else:
                self._tell(order.report, work)

    def _tell(self, call: Callable[..., None], *values: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *values)
        except RuntimeError:  # the loop was closed while this thread hung: nobody is left to hear it
            return


def _told(error: BaseException) -> AioseedError:
    if isinstance(error, AioseedError):
        return error
    failed = EnvironmentFailed(f"the environment raised {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed


def _resolve(future: asyncio.Future[object], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[object], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
