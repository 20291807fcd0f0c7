"""The groups of an actor and their workers, from one session to the next.

A session may break off while environments step. What they report then is kept in their groups, so that the next session
goes on with it if the learner has kept the slots, and is forgotten with the groups if not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from aioseed.actor.group import Group, Work
from aioseed.actor.session import Jobs
from aioseed.actor.worker import Worker
from aioseed.errors import AioseedError

Listener = Callable[[int, Work | AioseedError], None]
"""Takes what came of a job of a group, by the group's index."""


class Crew:
    """Hand jobs to workers and their reports to whoever talks with the learner. Thread: the event loop's."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.groups: list[Group] = []
        """The groups of the session; filled by `ActorSession`, empty before the first and after `forget`."""
        self.failure: AioseedError | None = None
        """What ended the environments while nobody listened."""
        self._workers = workers
        self._listener: Listener | None = None

    def listen(self, listener: Listener | None) -> None:
        """Report to `listener` from now on; with None reports go into the groups alone."""
        self._listener = listener

    def submit(self, jobs: Jobs) -> None:
        """Hand each job to its group's worker."""
        for index, job in jobs:
            self._workers[index].submit(job, partial(self._report, index, self.groups[index]))

    def forget(self) -> None:
        """Begin anew with the next session: its groups reset every environment."""
        self.groups = []

    def _report(self, index: int, group: Group, result: Work | AioseedError) -> None:
        if index >= len(self.groups) or self.groups[index] is not group:
            return  # of groups that were forgotten; environments that failed fail every later job too
        if self._listener is not None:
            self._listener(index, result)
        elif isinstance(result, AioseedError):
            self.failure = result
        elif (job := group.stepped(result).job) is not None:
            self.submit([(index, job)])
