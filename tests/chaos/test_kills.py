"""Actors and learners that die by SIGKILL, again and again, in real processes."""

from __future__ import annotations

import asyncio

import pytest

from aioseed.chaos.cast import trial_config
from aioseed.chaos.faults import Kind, repeated
from aioseed.chaos.trial import SAVE_S, Trial

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

SEED = 5
CHECKPOINT_S = 3.0


@pytest.fixture
def six_actors(small):
    return small("actor.processes=6")


@pytest.mark.parametrize(
    ("kind", "count", "large"), [(Kind.ACTOR_KILL, 300, 10_000), (Kind.LEARNER_KILL, 30, 1_000)], ids=str
)
async def test_nothing_is_lost_by_kills(tmp_path, six_actors, full, kind, count, large):
    config = trial_config(six_actors, CHECKPOINT_S)
    faults = repeated(SEED, config.actor.processes, kind, large if full else count)
    outcome = await Trial(tmp_path, config, faults, print).run(asyncio.Event())
    print(f"seed {SEED}: {outcome}")
    assert outcome.violations == []
    assert outcome.faults == {kind: large if full else count}
    assert outcome.imbalance == 0
    assert outcome.longest_loss_s <= CHECKPOINT_S + SAVE_S
