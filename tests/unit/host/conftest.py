"""The smallest CartPole run: what the host's parts are tried with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aioseed.host.config import RunConfig
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

SMALL = (
    "transport.name=memory",
    "actor.processes=1",
    "actor.groups=2",
    "actor.envs_per_group=2",
    "serving.max_environments=8",
    "serving.max_batch_rows=4",
    "serving.buckets=[4]",
    "experience.unroll_steps=4",
    "training.batch_unrolls=4",
    "network={name: mlp, hidden: [8]}",
    "stop.return_mean=null",
    "telemetry.every_s=0.2",
    "telemetry.tensorboard=false",
)


@pytest.fixture(scope="session")
def small() -> Callable[..., RunConfig]:
    """Return a function that makes the configuration, with further overrides."""
    cartpole = read("cartpole")
    return lambda *overrides: validate(RunConfig, apply_overrides(cartpole, [*SMALL, *overrides]), "")
