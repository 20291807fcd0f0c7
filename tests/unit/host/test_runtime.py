"""A learning rate that falls over `total_steps` is at its end when the run is."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from aioseed.experience.replay.limiter import SamplesPerInsert
from aioseed.host.config import RunConfig
from aioseed.host.runtime import optimizer_of
from aioseed.validation import validate

TOTAL_STEPS, UNROLL_STEPS, BATCH = 6000, 5, 4


def steps_made(config: RunConfig, inserted_steps: int) -> int:
    """Return how many optimiser steps a run without borders makes, driven as replay is, by the limiter's own word."""
    replay = config.replay
    if replay is None:
        return TOTAL_STEPS // (inserted_steps * BATCH)
    limiter = SamplesPerInsert(
        replay.samples_per_insert, min_unrolls=replay.min_unrolls, insert_unrolls=1, sample_unrolls=BATCH
    )
    while True:
        while limiter.may_insert() and limiter.inserted * inserted_steps < TOTAL_STEPS:
            limiter.insert()
        if not limiter.may_sample():
            return limiter.sampled // BATCH
        limiter.sample()


@pytest.mark.parametrize(
    ("replay", "inserted_steps"),
    [
        (None, UNROLL_STEPS),
        ({"min_unrolls": 1, "samples_per_insert": 2}, UNROLL_STEPS),
        ({"min_unrolls": 600, "samples_per_insert": 2}, UNROLL_STEPS),
        (
            {"min_unrolls": 100, "samples_per_insert": 8, "hindsight": {"window_steps": 30, "reward": "m:f"}},
            30,
        ),
    ],
    ids=["on-policy", "replay", "replay half full first", "hindsight"],
)
def test_the_rate_falls_over_the_optimiser_steps_of_the_run(
    replay: dict[str, object] | None, inserted_steps: int
) -> None:
    training = {
        "total_steps": TOTAL_STEPS,
        "batch_unrolls": BATCH,
        "optimizer": {"learning_rate": 1.0, "schedule": {"kind": "linear"}},
    }
    form = {
        "environment": {"name": "none"},
        "experience": {"unroll_steps": UNROLL_STEPS},
        "replay": replay and {"capacity_unrolls": 1000, **replay},
        "training": training,
    }
    config = validate(RunConfig, form, "")
    rate, steps = optimizer_of(config).learning_rate, steps_made(config, inserted_steps)
    # Of what is still owed at the end, one sample and half of an insert's may be left.
    assert float(rate(jnp.int32(steps // 2))) == pytest.approx(0.5, abs=0.01)
    assert float(rate(jnp.int32(steps - 3))) > 0 == float(rate(jnp.int32(steps + 3)))
