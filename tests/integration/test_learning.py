"""Agents learn what their presets say they do: an algorithm with a sign wrong passes every other test of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioseed.host.config import RunConfig
from aioseed.host.train import train
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

PRESETS = {name: read(name) for name in ("cartpole", "cartpole-ppo", "cue-vtrace")}
# Several times what it takes; a run that does not learn ends there.
STEPS = {"cartpole": 1_000_000, "cartpole-ppo": 500_000, "cue-vtrace": 1_000_000}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("preset", "seed"), [("cartpole", 1), ("cartpole-ppo", 1), ("cartpole-ppo", 2), ("cue-vtrace", 1)]
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
