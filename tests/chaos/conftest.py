"""What the long proofs share: how much of them is run, and the small run that they break."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from aioseed.host.config import RunConfig, load_config

SMALL = (
    "actor.groups=1",
    "actor.envs_per_group=2",
    "actor.switch_interval_s=0.005",
    "serving.max_environments=64",
    "serving.max_batch_rows=32",
    "serving.buckets=[32]",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "network={name: mlp, hidden: [16]}",
)
"""A run that compiles fast and whose actors cost little."""


@pytest.fixture(scope="session")
def full() -> bool:
    """Say whether the large numbers are wanted: `make chaos FULL=1`."""
    return bool(os.environ.get("AIOSEED_CHAOS_FULL"))


@pytest.fixture
def small() -> Callable[..., RunConfig]:
    return lambda *overrides: load_config("cartpole", [*SMALL, *overrides])
