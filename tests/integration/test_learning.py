"""Agents learn what their presets say they do: an algorithm with a sign wrong passes every other test of a run.

`make test` has one run of them, `make learning` several presets with three seeds each.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from aioseed.host.config import RunConfig
from aioseed.host.train import train
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

# Several times what it takes; a run that does not learn ends there.
STEPS = {
    "acrobot": 3_000_000,
    "cartpole": 1_000_000,
    "cartpole-lstm": 2_000_000,
    "cartpole-ppo": 500_000,
    "cartpole-r2d2": 400_000,
    "cue-r2d2": 100_000,
    "cue-vtrace": 1_000_000,
}
PRESETS = {name: read(name) for name in STEPS}
IN_EVERY_TEST = ("cartpole-ppo", 1)


def marks(*which: object) -> list[pytest.MarkDecorator]:
    return [] if which == IN_EVERY_TEST else [pytest.mark.learning]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("preset", "seed"), [pytest.param(name, seed, marks=marks(name, seed)) for name in STEPS for seed in (1, 2, 3)]
)
async def test_a_preset_reaches_its_goal(tmp_path: Path, preset: str, seed: int) -> None:
    overrides = [
        f"seed={seed}",
        "transport.name=memory",
        f"training.total_steps={STEPS[preset]}",
        "training.checkpoint.every_s=null",
        "telemetry.tensorboard=false",
    ]
    result = await train(validate(RunConfig, apply_overrides(PRESETS[preset], overrides), ""), run_dir=tmp_path / "run")
    assert result.reason == "solved", f"a mean return of {result.return_mean_100} after {result.trained_steps} steps"
    assert result.imbalance == 0
