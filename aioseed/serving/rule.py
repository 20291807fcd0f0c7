"""When to close a batch: one pure function.

Closing too early wastes the device on small batches (min_batch=1 under-batches); closing too late lets it idle, and a
batch of exactly N never closes once an actor is dead. Four clauses cover it:

- *all*: every environment that is expected waits; nobody is left to wait for.
- *enough*: the device is idle and half of those that answered the last two closes wait. While they are served the other
  half steps, so device and environments overlap without any setting. As long as each look at the network finds further
  steps, it is worth another: those of a burst share a batch, whose cost is hardly that of its rows. That may last as
  long as serving a batch takes, or as messages take to arrive that were sent together, a millisecond, if that is less.
- *patience*: the device has been idle, with somebody waiting, for as long as it takes to serve a batch. A small
  disturbance may have split those who step in phase into more and less than half; without this clause the fewer would
  wait for the others to come round. Whoever rents until renting has cost as much as buying never pays more than twice
  what was needed (the ski rental problem: Karlin et al. 1988, "Competitive snoopy caching"). Where serving takes less
  than the millisecond within which messages arrive that were sent together, it waits up to that, but at most twice as
  long as serving takes.
- *deadline*: the oldest waiting step has waited long enough. Whoever was missing is not expected until it sends again,
  so a frozen actor costs the others one deadline, once.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

TIMER_S = 0.001
"""Timers of an event loop are no finer. What is due sooner is seen when the next message comes."""
TOGETHER_S = 0.001
"""Messages that were sent together arrive within less."""


class Close(Enum):
    """Say whether a batch closes, and by which clause."""

    NO = "no"
    FULL = "full"
    ALL = "all"
    ENOUGH = "enough"
    PATIENCE = "patience"
    DEADLINE = "deadline"


class Waiting(NamedTuple):
    """Describe the open batch and those who may still join it."""

    rows: int  # environments that wait in the open batch
    expected: int  # environments that wait or should send soon: leased, not in a closed batch, not late
    recent: int  # different environments in the last two closed batches
    in_flight: int  # closed batches that were not answered yet
    age_s: float  # how long the oldest row has waited
    idle_s: float  # how long the device has been idle while it waited; meaningless with batches in flight
    service_s: float  # what serving a batch takes, sending left out; infinite before the first
    arriving: bool = False  # the latest look at the network found further steps


class Limits(NamedTuple):
    """Hold the constants of a run."""

    max_rows: int
    max_in_flight: int
    deadline_s: float
    lockstep_rows: int = 0  # N in lockstep mode, where a batch closes with exactly all N; else 0


def patience_s(service_s: float) -> float:
    """Return how long an idle device waits for more rows."""
    return max(service_s, min(2 * service_s, TOGETHER_S))


def close_now(state: Waiting, limits: Limits) -> Close:
    """Decide whether the open batch closes now."""
    if limits.lockstep_rows:
        return Close.ALL if state.rows == limits.lockstep_rows else Close.NO
    if state.rows == 0 or state.in_flight >= limits.max_in_flight:
        return Close.NO
    if state.rows >= limits.max_rows:
        return Close.FULL
    if state.rows >= state.expected:
        return Close.ALL
    # Rounded up, so that a lone environment beside a frozen one is enough by itself only once the other is forgotten.
    enough = (state.recent + 1) // 2
    settled = not state.arriving or state.idle_s >= min(state.service_s, TOGETHER_S)
    if state.in_flight == 0 and enough and state.rows >= enough and settled:
        return Close.ENOUGH
    if state.in_flight == 0 and state.idle_s >= patience_s(state.service_s):
        return Close.PATIENCE
    if state.age_s >= limits.deadline_s:
        return Close.DEADLINE
    return Close.NO
