"""Whole runs with transforms: statistics grow with what is trained, go on after a resume, and act with their policy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from aioseed import load_policy
from aioseed.host.config import RunConfig
from aioseed.host.train import train
from aioseed.presets import apply_overrides, read
from aioseed.training.rundir import CHECKPOINTS
from aioseed.training.store import CheckpointStore
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(300)]

SMALL = [
    "transport.name=memory",
    "mode=lockstep",
    "actor.processes=1",
    "actor.groups=1",
    "actor.envs_per_group=8",
    "serving.max_environments=16",
    "serving.max_batch_rows=8",
    "serving.buckets=[8]",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "training.micro_unrolls=4",
    "network={name: mlp, hidden: [8]}",
    "transforms=[{name: normalize}, {name: frame_stack, n: 2}]",
    "stop.return_mean=null",
    "telemetry.tensorboard=false",
]


CARTPOLE = read("cartpole")


def small(*overrides: str) -> RunConfig:
    return validate(RunConfig, apply_overrides(CARTPOLE, [*SMALL, *overrides]), "")


async def rows_and_steps(run_dir: Path) -> tuple[float, int]:
    """Return how many rows the saved normaliser has seen, and how many optimiser steps were made."""
    saved = await asyncio.to_thread(CheckpointStore(run_dir / CHECKPOINTS).newest)
    assert saved is not None
    (name,) = [name for name in saved.arrays if name.startswith("learner/extra/") and name.endswith("rows")]
    return float(saved.arrays[name]), saved.manifest.step


async def test_statistics_are_saved_restored_and_published_with_the_policy(tmp_path: Path) -> None:
    run = tmp_path / "run"
    await train(small("training.total_steps=640"), run_dir=run)
    rows, steps = await rows_and_steps(run)
    # Every row of an unroll but the last one counts, those between two episodes too.
    assert rows == 64 * steps > 0
    assert await asyncio.to_thread(lambda: load_policy(run)(np.zeros(4, np.float32))) in (0, 1)
    await train(small("training.total_steps=1280"), run_dir=run, resume="auto")
    rows, more_steps = await rows_and_steps(run)
    assert rows == 64 * more_steps > 64 * steps
