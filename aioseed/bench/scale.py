"""Loops over the serving measurement: transports beside one another, more connections, latency below the top load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aioseed.bench.serving import MIN_ROUNDS, ROUND_S, Contest, ServingResult, measure_serving
from aioseed.bench.traffic import Traffic
from aioseed.errors import UsageError

PASSES = 3
REFERENCE_SESSIONS = 16
HALF_LOAD = 0.5
GROWTH_FIGURES = (
    "sessions", "envs_per_session", "steps_per_s", "echo_steps_per_s", "share_of_echo", "action_latency_ms",
    "echo_latency_ms",
)  # fmt: skip


async def measure_transports(traffic: Traffic, transports: Sequence[str], seconds: float) -> dict[str, object]:
    """Measure each transport several times, one after the other, `seconds` each in all."""
    results: dict[str, list[ServingResult]] = {name: [] for name in transports}
    for _ in range(PASSES):
        for name in transports:
            each = traffic._replace(transport=name)
            results[name].append(await measure_serving(each, seconds / PASSES, max(1, round(seconds / PASSES))))
    return {"transports": {name: joined(passes).figures() for name, passes in results.items()}}


async def measure_connections(traffic: Traffic, sessions: Sequence[int], seconds: float) -> dict[str, object]:
    """Measure the road for each number of sessions, `seconds` each in all, in several passes over all of them."""
    rows = await _grown([traffic._replace(sessions=count) for count in sessions], seconds)
    references = [float(str(row["steps_per_s"])) for row in rows if row["sessions"] == REFERENCE_SESSIONS]
    for row in rows if references else ():
        row["share_of_16_sessions"] = round(float(str(row["steps_per_s"])) / references[0], 4)
    return {"connections": rows}


async def measure_environments(traffic: Traffic, environments: Sequence[int], seconds: float) -> dict[str, object]:
    """Measure the road for each number of environments, spread over the sessions of `traffic` or, if fewer, one each.

    Raises:
        UsageError: The sessions cannot share a number evenly.
    """
    return {"environments": await _grown([spread(traffic, count) for count in environments], seconds)}


def spread(traffic: Traffic, environments: int) -> Traffic:
    """Return `traffic` with so many environments in all.

    Raises:
        UsageError: Its sessions cannot share them evenly.
    """
    sessions = min(traffic.sessions, environments)
    if environments % sessions:
        raise UsageError(f"{sessions} sessions cannot share {environments} environments evenly")
    return traffic._replace(sessions=sessions, envs_per_session=environments // sessions).check()


async def _grown(traffics: Sequence[Traffic], seconds: float) -> list[dict[str, object]]:
    """Return a row of figures for each traffic; several passes over all, so that none has a quiet minute to itself."""
    results: list[list[ServingResult]] = [[] for _ in traffics]
    for _ in range(PASSES):
        for traffic, passes in zip(traffics, results, strict=True):
            passes.append(await measure_serving(traffic, seconds / PASSES, 1))
    rows = []
    for traffic, passes in zip(traffics, results, strict=True):
        figures = joined(passes).figures()
        rows.append({"environments": traffic.environments} | {name: figures[name] for name in GROWTH_FIGURES})
    return rows


async def measure_latency(traffic: Traffic, seconds: float) -> dict[str, object]:
    """Measure latency at the top load of the road, then of echo and road alike at half of it."""
    turns = max(MIN_ROUNDS, round(seconds / 2 / ROUND_S))
    async with Contest.open(traffic) as contest:
        top = await contest.rounds(turns, seconds / 2 / turns)
        messages_per_s = float(np.median([each.road.turn.messages_per_s for each in top.rounds])) * HALF_LOAD
        half = await contest.rounds(turns, seconds / 2 / turns, messages_per_s)
    above = [each.road.turn.p99_ms - each.echo.turn.p99_ms for each in half.rounds]
    return {
        "top": top.figures(),
        "half": half.figures(),
        "half_messages_per_s": round(messages_per_s, 1),
        "p99_above_echo_ms": round(float(np.median(above)), 4),
    }


def joined(results: Sequence[ServingResult]) -> ServingResult:
    """Return the rounds of several measurements of the same traffic as one."""
    rounds = tuple(each for result in results for each in result.rounds)
    return ServingResult(results[0].traffic, rounds, float(np.median([result.batch_rows_p50 for result in results])))
