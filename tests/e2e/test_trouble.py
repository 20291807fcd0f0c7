"""Actors that die or freeze in the middle of a run cost the others nothing but a deadline, and the books balance."""

from __future__ import annotations

import json
import os
import signal

import pytest

from aioseed.host.config import RunConfig
from aioseed.host.events import Progress
from aioseed.host.learner import Learner
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")]

STRICT = (
    "serving.ping_interval_s=0.5",
    "serving.ping_timeout_s=0.5",
    "serving.resume_grace_s=4",
    "serving.batch_deadline_s=0.01",
)
MEANWHILE_STEPS = 500
ENVIRONMENTS = 8


@pytest.fixture
def config(small):
    return validate(RunConfig, apply_overrides(read("cartpole"), [*small, *STRICT]), "")


async def test_a_killed_and_a_frozen_actor(start, config, tmp_path, monkeypatch, caches):
    monkeypatch.setenv("XDG_RUNTIME_DIR", caches["XDG_RUNTIME_DIR"])
    listen = ["ws://127.0.0.1:0", "grpc://127.0.0.1:0"]
    async with Learner(config, listen=listen, run_dir=tmp_path / "run") as learner:
        urls = [learner.urls[0], learner.urls[0], learner.urls[1], learner.urls[0]]
        words = ("--env", "CartPole-v1", "--envs", ENVIRONMENTS, "--wait-s", 60)
        healthy, frozen, frozen_over_grpc, killed = [start("actor", url, *words) for url in urls]
        events = learner.events()

        async def until(environments: int) -> Progress:
            """Wait until so many environments are leased and some steps more were trained."""
            at_least = None
            async for event in events:
                if isinstance(event, Progress) and event.environments == environments:
                    at_least = at_least or event.trained_steps + MEANWHILE_STEPS
                    if event.trained_steps >= at_least:
                        return event
            raise AssertionError("the run ended")

        await until(4 * ENVIRONMENTS)
        killed.signal(signal.SIGKILL)
        frozen.signal(signal.SIGSTOP)
        frozen_over_grpc.signal(signal.SIGSTOP)
        await until(ENVIRONMENTS)
        frozen.signal(signal.SIGCONT)
        frozen_over_grpc.signal(signal.SIGCONT)
        await until(3 * ENVIRONMENTS)
        learner.stop()
        finished = await learner.wait()
    assert finished.imbalance == 0 and finished.held_steps == 0
    assert finished.env_steps == finished.trained_steps + sum(finished.dropped.values())
    assert finished.dropped["lease_ended"] > 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["serving/suspended"] == 2
    assert last["serving/refused_rows_stale_epoch"] > 0
    for actor in (frozen, frozen_over_grpc):
        actor.says("stale_epoch")
    assert not any("stale_epoch" in line for line in healthy.err)
