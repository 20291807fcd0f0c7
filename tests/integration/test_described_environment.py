"""A learner without the environment: its configuration says the spaces, and actors elsewhere step in Python."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from aioseed import EnvironmentConfig, run_actor
from aioseed.errors import RefusedError
from aioseed.host.config import RunConfig
from aioseed.host.learner import Learner
from aioseed.transport.memory import MemoryTransport
from aioseed.wire.messages import Task

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {
    "serving": {"max_environments": 16, "max_batch_rows": 16},
    "experience": {"unroll_steps": 5},
    "training": {"total_steps": 100, "batch_unrolls": 4},
    "telemetry": {"tensorboard": False},
}

pytestmark = pytest.mark.timeout(120)


def described() -> RunConfig:
    """Return the run that the guide to own environments shows for a learner without the environment."""
    guide = (DOCS / "howto" / "own-environment.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.S) if "described" in block]
    return RunConfig.model_validate(yaml.safe_load(shown) | SMALL)


async def test_a_learner_that_was_told_the_spaces_trains_with_python_actors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS / "examples")
    network = MemoryTransport()
    corridor = EnvironmentConfig(name="own_environment:Corridor", options={"max_episode_steps": 100})
    async with Learner(described(), listen=["memory://l"], run_dir=tmp_path / "run", transports=[network]) as learner:
        with pytest.raises(RefusedError, match=r"differs: this run has .Corridor."):
            task = Task(name=corridor.name, config={})
            await run_actor(learner.urls[0], corridor, environments=1, transport=network, task=task, wait_s=100)
        actor = asyncio.create_task(run_actor(learner.urls[0], corridor, environments=4, transport=network, wait_s=100))
        finished = await learner.wait()
        await actor
    assert finished.reason == "total_steps" and finished.trained_steps >= 100
