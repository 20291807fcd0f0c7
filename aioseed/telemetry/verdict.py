"""The verdict: one sentence on what limits a run, from measured shares of time."""

from __future__ import annotations

import math
from typing import NamedTuple

BUSY_SHARE = 0.8
"""A thread busy for more than this share of the time has no room left that scheduling noise would not take."""
BLOCKED_SHARE = 0.05
"""A full queue that stops inference for more than this share of the time is not noise."""
BACKLOG_SHARE = 0.5
"""Where updates and waits for them take less of the time together, unrolls come in bursts that are soon worked off."""
DISTANT_SHARE = 0.5
"""More than this share of the time from one step of an environment to its next on the way: distance is what limits."""
DISTANT_MS = 2.0
"""Within a machine and a room no way takes so long, unless something else keeps the actor or the learner."""
LINK_MS = 10.0
"""Nothing but a link carries a message for so long: a busy machine may seem to for some milliseconds."""


class RunShares(NamedTuple):
    """Hold what the verdict rests on, over the time from one report to the next."""

    environments: int  # leased
    training_busy: float  # share of the time in which the training thread computed, 0 to 1
    inference_busy: float  # share in which anybody acted or filled unrolls, waits left out
    inference_blocked: float  # share in which the inference thread waited for the full queue
    loop_busy: float  # share in which the event loop's thread had a processor: sockets, sessions, batches of its own
    action_latency_ms: float  # median time from a STEP's arrival to its ACTION: how long actors wait
    cycle_ms: float  # mean time from a step of an environment to its next, NaN while there are none
    round_trip_ms: float  # to the actors and back, the median over their environments; NaN while unknown
    stepping_share: float  # of the time, for which environments step, the mean over them; NaN while unknown


def cycle_ms(environments: int, steps_per_s: float) -> float:
    """Return the mean time from one step of an environment to its next, NaN where none steps."""
    return 1000.0 * environments / steps_per_s if steps_per_s else math.nan


def between_ms(shares: RunShares) -> float:
    """Return the time from one step of an environment to its next in which it neither steps nor waits at the learner.

    NaN while nobody has said how long environments step.
    """
    return shares.cycle_ms * (1.0 - shares.stepping_share) - shares.action_latency_ms


def explain(shares: RunShares) -> str:
    """Return the one sentence on what limits the run."""
    wait = _ms(shares.action_latency_ms)
    if shares.environments == 0:
        return "waiting for actors: no environment is connected"
    backlog = shares.training_busy + shares.inference_blocked > BACKLOG_SHARE
    blocked = backlog and shares.inference_blocked > BLOCKED_SHARE
    if blocked or shares.training_busy > max(BUSY_SHARE, shares.inference_busy):
        return f"learner-bound: {shares.training_busy:.0%} busy; actors wait {wait}".replace("%", " %")
    if shares.inference_busy > BUSY_SHARE:
        return f"inference-bound: {shares.inference_busy:.0%} busy; actors wait {wait}".replace("%", " %")
    if shares.loop_busy > BUSY_SHARE:
        # Small batches are served by the loop itself: whoever looks for the cause must see both shares.
        return (
            f"network-bound: the event loop is {shares.loop_busy:.0%} busy, inference {shares.inference_busy:.0%}; "
            f"actors wait {wait}"
        ).replace("%", " %")
    if (between := _on_the_way(shares)) is not None:
        return between
    return (
        f"actor-bound: training is {shares.training_busy:.0%} busy, inference {shares.inference_busy:.0%}; "
        "more actors would help"
    ).replace("%", " %")


def _on_the_way(shares: RunShares) -> str | None:
    """Return the sentence on a way to the actors that is what limits, None if it is not."""
    between, half_ms = between_ms(shares), DISTANT_SHARE * shares.cycle_ms
    cycle = f"of the {_ms(shares.cycle_ms)} from one step of an environment to its next, "
    elsewhere = between <= half_ms  # false for NaN: who does not say how long it steps is judged by its PONGs alone
    if shares.round_trip_ms > DISTANT_MS and shares.round_trip_ms > half_ms and not elsewhere:
        return (
            f"distance-bound: {cycle}{_ms(shares.round_trip_ms)} are the way to the actors and back; more"
            " environments an actor would help"
        )
    if between > LINK_MS and between > half_ms:
        return (
            f"link-bound: {cycle}{_ms(between)} are spent between actors and learner, where a short message is there"
            f" and back in {_ms(shares.round_trip_ms)}; smaller observations or a faster link would help"
        )
    return None


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100.0 else f"{value:.3g} ms"
