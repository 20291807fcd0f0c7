"""A worker of an actor without a thread: environments step in the event loop, each step after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aioseed.actor.group import Job, perform
from aioseed.actor.worker import Built, Report, Worker
from aioseed.errors import AioseedError
from aioseed.types import BatchEnvironment

__all__ = ["InlineWorker"]


class InlineWorker(Worker):
    """Do what `Worker` does, in virtual time.

    Args:
        duration_s: Draws the time that a job takes.
    """

    def __init__(
        self, index: int, count: int, make: Callable[[int], BatchEnvironment], duration_s: Callable[[], float]
    ) -> None:
        super().__init__(index, count, make)
        self._duration_s = duration_s
        self._environment: BatchEnvironment | None = None
        self._free_at_s = 0.0

    async def build(self) -> Built:
        """Build the environments at once."""
        self._environment, self._made = self._build()
        return self._made

    def submit(self, job: Job, report: Report) -> None:
        """Do a job after the ones before it and the time that it takes."""
        loop = asyncio.get_running_loop()
        self._free_at_s = max(self._free_at_s, loop.time()) + self._duration_s()
        loop.call_at(self._free_at_s, self._do, job, report)

    def stop(self) -> None:
        """Close the environments. Idempotent."""
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()

    async def join(self) -> None:
        """Wait for nothing."""

    def _do(self, job: Job, report: Report) -> None:
        if self._environment is None:
            return
        try:
            work = perform(self._environment, self._made.message, job)
        except AioseedError as error:
            report(error)
        else:
            report(work)
