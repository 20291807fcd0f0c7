"""What a learner tells whoever embeds it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple, TypeAlias

from aioseed.telemetry.verdict import RunShares


class Listening(NamedTuple):
    """Report that actors may connect; they wait until `Ready`."""

    urls: tuple[str, ...]


class Ready(NamedTuple):
    """Report that everything is compiled and actors are welcomed."""

    startup_s: float
    notes: tuple[str, ...] = ()  # sentences for the user, such as how much memory replay takes


class Progress(NamedTuple):
    """Report where a run stands. Rates are over the time since the report before."""

    env_steps: int  # transitions accepted
    trained_steps: int  # transitions trained on: consumed, or still in replay
    evaluated_steps: int
    held_steps: int  # on the way to training
    replay_steps: int  # trained on, and kept to be trained on again
    dropped: dict[str, int]  # by reason
    lost_after_checkpoint: int
    env_steps_per_s: float
    trained_steps_per_s: float
    return_mean: float  # of the last `stop.episodes` training episodes; NaN before the first
    evaluation_return_mean: float  # of as many of actors in the role evaluate; NaN without any
    episodes: int
    policy_lag: float  # optimiser steps, median
    batch_rows: float  # environments an inference batch served, median
    action_latency_ms: float  # median
    environments: int  # leased now
    actors: int
    policy_version: int
    wall_s: float  # since training began
    share_done: float | None  # of training.total_steps; None without
    verdict: str
    shares: RunShares  # what the verdict rests on
    metrics: dict[str, float]  # of the newest update; environment/<name>: means over the last episodes


class Saved(NamedTuple):
    """Report a checkpoint that was written and verified."""

    version: int
    path: str


class Trouble(NamedTuple):
    """Report something that the run survived and a user should know."""

    message: str


class Finished(NamedTuple):
    """Report the end of a run. Steps are those of the whole run, rates and `wall_s` those since it was last started."""

    reason: Literal["solved", "total_steps", "stopped"]
    env_steps: int
    trained_steps: int  # as in Progress
    evaluated_steps: int
    dropped: dict[str, int]  # by reason
    held_steps: int  # as in Progress
    replay_steps: int
    imbalance: int  # accepted minus all that is accounted for
    env_steps_per_s: float
    trained_steps_per_s: float
    return_mean_100: float  # as `return_mean` in Progress
    wall_s: float
    run_dir: str
    params_sha256: str  # empty if the run was stopped before it began to train
    return_episodes: int = 0  # that return_mean_100 is over: fewer where fewer ended since the run was last started

    @property
    def solved(self) -> bool:
        """Say whether the run reached its goal."""
        return self.reason == "solved"

    @property
    def saved(self) -> bool:
        """Say whether a checkpoint was written: not if the run was stopped before it began to train."""
        return bool(self.params_sha256)


Event: TypeAlias = Listening | Ready | Progress | Saved | Trouble | Finished

_PROGRESS_KEPT = 64
_REMEMBERED: dict[type[Event], int] = {Progress: 1, Saved: 1, Trouble: 64}
"""How many of those that come again and again are told to late listeners: a run may last for months."""


class EventHub:
    """Pass events to any number of listeners (Thread: the event loop alone).

    A listener that comes late is told what happened before: of `Progress` and `Saved` the newest, of `Trouble` the last
    64.
    """

    def __init__(self) -> None:
        self._history: list[Event] = []
        self._listeners: list[asyncio.Queue[Event]] = []

    def emit(self, event: Event) -> None:
        """Tell everyone; one that does not keep up loses `Progress` events, never others."""
        alike = [place for place, past in enumerate(self._history) if type(past) is type(event)]
        if len(alike) >= _REMEMBERED.get(type(event), math.inf):
            del self._history[alike[0]]
        self._history.append(event)
        for queue in self._listeners:
            if not (isinstance(event, Progress) and queue.qsize() > _PROGRESS_KEPT):
                queue.put_nowait(event)

    async def follow(self, source: asyncio.Task[Finished]) -> AsyncIterator[Event]:
        """Yield events until `source` has ended and all of them were handed out. Safe to cancel."""
        mine: asyncio.Queue[Event] = asyncio.Queue()
        for event in self._history:
            mine.put_nowait(event)
        self._listeners.append(mine)
        try:
            while not (source.done() and mine.empty()):
                getter = asyncio.ensure_future(mine.get())
                ends: set[asyncio.Future[Any]] = {getter, source}
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    if getter.done():
                        yield getter.result()
                finally:
                    getter.cancel()
        finally:
            self._listeners.remove(mine)
