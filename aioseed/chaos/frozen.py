"""Freeze some of the actors, as SIGSTOP does, and check what the others wait for them (invariant 6).

Virtual time makes this exact: environments take about as long as each other, so a gap between two answers that is
longer than usual is one in which somebody was waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import NamedTuple

from aioseed.chaos.actor import ENVIRONMENTS, SimulatedActor
from aioseed.chaos.invariants import Applied, Expectation, check_delays
from aioseed.chaos.learner import RUN_SEED, Laboratory, SimulatedLearner
from aioseed.chaos.network import SimulatedNetwork, SimulatedTransport
from aioseed.serving.config import ServingConfig
from aioseed.testing.seeded_loop import SeededLoop, party

URL = "simulated://learner"
ACTORS = 3
DEADLINE_S = 3.0
"""Of batches: much longer than a step takes, so that a wait for somebody who is frozen stands out."""
USUAL_S = 1.5
"""A step of the environment, both ways over the network, and a batch that closes because enough wait."""
CALM_S = 20.0
LONG_S = 100.0
"""Silence that nobody notices: only the rule that closes batches is to free the others."""


class Waited(NamedTuple):
    """Report what the others waited."""

    answers: int
    late: int  # that took longer than usual
    longest_s: float


async def freeze(laboratory: Laboratory, seed: int, frozen: int) -> Waited:
    """Let actors step, freeze `frozen` of them for a while, and return what the others waited; for a `SeededLoop`.

    Raises:
        Violation: Somebody waited longer than a deadline, or more than once for an actor that froze.
    """
    loop, rng = asyncio.get_running_loop(), random.Random(seed)  # noqa: S311
    assert isinstance(loop, SeededLoop)
    failed: asyncio.Future[None] = loop.create_future()
    network = SimulatedNetwork(rng)
    config = ServingConfig(max_environments=24, max_batch_rows=24, batch_deadline_s=DEADLINE_S, ping_interval_s=LONG_S)
    learner = SimulatedLearner(laboratory, config, rng, 1, None, Expectation(RUN_SEED), Applied())
    await learner.listen(SimulatedTransport(network, "learner"), URL)
    running = loop.create_task(learner.run(), context=party("learner"))
    actors = [SimulatedActor(index, URL, network, rng, failed.set_exception) for index in range(ACTORS)]

    async def pass_time(duration_s: float) -> None:
        done, _ = await asyncio.wait([failed, running], timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()

    while learner.table.leased < ACTORS * ENVIRONMENTS:
        await pass_time(1.0)
    await pass_time(CALM_S)
    began_s = loop.time()
    victims, others = actors[:frozen], actors[frozen:]
    for victim in victims:
        loop.freeze(victim.name)
    await pass_time(rng.uniform(10.0, 30.0))
    for victim in victims:
        loop.thaw(victim.name)
    await pass_time(CALM_S)
    gaps_s: list[float] = []
    for answered_s in (group for actor in others for group in actor.answered_s):
        since = [at_s for at_s in answered_s if at_s >= began_s - USUAL_S]
        own_s = [later - sooner for sooner, later in itertools.pairwise(since)]
        check_delays(own_s, USUAL_S, DEADLINE_S, frozen)
        gaps_s += own_s
    await loop.create_task(learner.end(), context=party("learner"))
    running.cancel()
    return Waited(len(gaps_s), sum(gap_s > USUAL_S for gap_s in gaps_s), max(gaps_s))
