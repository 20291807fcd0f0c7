"""Whole runs with replay: R2D2 on Catch over in-memory channels, with books that balance and saves that hold."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioseed.agents.agent import AgentPlugin
from aioseed.agents.vtrace import VtraceConfig
from aioseed.agents.vtrace import agent as vtrace
from aioseed.errors import ConfigError
from aioseed.experience.replay.replay import Replay
from aioseed.host.config import RunConfig
from aioseed.host.evaluate import EvaluationProgress, evaluate
from aioseed.host.train import train
from aioseed.presets import apply_overrides, read
from aioseed.serving.inference import InferenceEngine
from aioseed.serving.rows import BatchRows
from aioseed.training.rundir import CHECKPOINTS
from aioseed.training.store import CheckpointStore
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(120)]

SMALL = [
    "agent.name=aioseed.agents.r2d2:agent",
    "agent.burn_in_steps=3",
    "network.name=aioseed.nets.recurrent:mlp_dueling_lstm",
    "network.hidden=[8]",
    "network.lstm_units=8",
    "network.dueling_units=8",
    "transport.name=memory",
    "actor.groups=2",
    "actor.envs_per_group=4",
    "serving.max_environments=32",
    "serving.max_batch_rows=8",
    "serving.buckets=[8]",
    "replay.capacity_unrolls=64",
    "replay.min_unrolls=16",
    "replay.samples_per_insert=2",
    "training.batch_unrolls=8",
    "telemetry.every_s=0.2",
    "telemetry.tensorboard=false",
]
CATCH, REACH = read("catch-r2d2"), read("reach-sac")

forgetful = AgentPlugin(VtraceConfig, lambda *parts: vtrace.build(*parts)._replace(replay="never"))


def small(*overrides: str) -> RunConfig:
    return validate(RunConfig, apply_overrides(CATCH, [*SMALL, *overrides]), "")


async def test_every_step_is_accounted_for_and_forgotten_ones_are_consumed(tmp_path: Path) -> None:
    result = await train(small("training.total_steps=3000"), run_dir=tmp_path / "run")
    assert result.imbalance == 0
    assert result.held_steps == 0 < result.replay_steps < result.trained_steps
    assert result.env_steps == result.trained_steps + sum(result.dropped.values())
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["ledger/replay"] > 0 and last["replay/size_unrolls"] <= 64
    assert last["replay/samples_per_insert"] == pytest.approx(2, rel=0.2)
    assert {"replay/sampled_priority/p50", "replay/sampled_age_unrolls/p50", "replay/never_sampled_share",
            "gradient_norm", "training/policy_lag_updates/p50"} <= set(last)  # fmt: skip


async def test_what_a_run_remembered_and_acted_with_is_free_as_soon_as_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replay may be most of the machine's memory, policy and states of a device's; the next learner begins at once."""
    made: list[weakref.ref[object]] = []

    def noting(kind: type) -> Callable[..., object]:
        def make(*parts: Any, **options: Any) -> object:
            made.append(weakref.ref(whole := kind(*parts, **options)))
            return whole

        return make

    monkeypatch.setattr("aioseed.host.experience.Replay", noting(Replay))
    monkeypatch.setattr("aioseed.host.runtime.InferenceEngine", noting(InferenceEngine))
    monkeypatch.setattr("aioseed.serving.rows.BatchRows", noting(BatchRows))
    held: list[object] = []
    monkeypatch.setattr("aioseed.host.learner.give_back", lambda: held.extend(whole() for whole in made))
    gc.disable()  # which looks through everything now and then, and seldom where JAX is loaded
    try:
        await train(small("training.total_steps=500"), run_dir=tmp_path / "run")
        assert len(held) > 2 and not any(held)
    finally:
        gc.enable()


async def test_an_evaluation_tells_how_far_it_is_and_its_policy_is_free_as_soon_as_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[InferenceEngine]] = []

    def noted(*parts: Any) -> InferenceEngine:
        made.append(weakref.ref(engine := InferenceEngine(*parts)))
        return engine

    await train(small("training.total_steps=500"), run_dir=tmp_path / "run")
    monkeypatch.setattr("aioseed.host.evaluate.InferenceEngine", noted)
    monkeypatch.setattr("aioseed.host.evaluate.TELL_EVERY_S", 0.0)
    told: list[EvaluationProgress] = []
    gc.disable()
    try:
        await evaluate(tmp_path / "run", episodes=4, on_progress=told.append)
        assert told[-1].ended <= told[-1].episodes == 4
        assert [engine() for engine in made] == [None]
    finally:
        gc.enable()


async def test_lockstep_with_replay_gives_the_same_parameters_run_after_run(tmp_path: Path) -> None:
    config = small("mode=lockstep", "training.total_steps=2000")
    one, other = [await train(config, run_dir=tmp_path / name) for name in "ab"]
    assert one.params_sha256 == other.params_sha256
    assert one.trained_steps >= 2000


async def test_two_resumes_with_replay_are_equal_and_nothing_in_replay_is_lost(tmp_path: Path) -> None:
    keep = ("mode=lockstep", "training.checkpoint.replay=true", "training.checkpoint.every_updates=40")
    first = await train(small(*keep, "training.total_steps=1000"), run_dir=tmp_path / "run")
    saved = await asyncio.to_thread(CheckpointStore(tmp_path / "run" / CHECKPOINTS).newest)
    assert saved is not None and len(saved.state["replay"]["segments"]) >= 16
    await asyncio.to_thread(shutil.copytree, tmp_path / "run", tmp_path / "copy")
    again = [
        await train(small(*keep, "training.total_steps=2000"), run_dir=tmp_path / name, resume="auto")
        for name in ("run", "copy")
    ]
    assert again[0].params_sha256 == again[1].params_sha256 != first.params_sha256
    assert again[0].imbalance == 0 and again[0].dropped.get("restart", 0) == 0


async def test_without_saved_replay_a_resumed_run_fills_it_anew(tmp_path: Path) -> None:
    first = await train(small("training.total_steps=1000"), run_dir=tmp_path / "run")
    second = await train(small("training.total_steps=2000"), run_dir=tmp_path / "run", resume="auto")
    assert second.imbalance == 0 and second.dropped["restart"] == first.replay_steps


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["replay=null"], "learns from replay: give the section replay"),
        (
            ["agent={name: tests.integration.test_replay_run:forgetful}"],
            "learns from what was just played: leave the section",
        ),
        (["mode=lockstep", "replay.samples_per_insert=null"], "lockstep needs replay.samples_per_insert"),
        (["replay.slack_unrolls=1"], "neither side waits for ever"),
        (["replay.max_bytes=1000"], "too large for replay.max_bytes"),
    ],
)
async def test_what_cannot_work_is_said_before_anything_is_trained(overrides, message, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        await train(small(*overrides), run_dir=tmp_path / "run")


async def test_vtrace_may_learn_from_replay(tmp_path: Path) -> None:
    overrides = ["agent={name: vtrace}", "network={name: mlp, hidden: [8]}", "replay.sampling=uniform"]
    result = await train(small(*overrides, "training.total_steps=2000"), run_dir=tmp_path / "run")
    assert result.imbalance == 0 < result.replay_steps < result.trained_steps
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["replay/samples_per_insert"] == pytest.approx(2, rel=0.2)
    assert last["training/policy_lag_updates/p50"] > 1


async def test_windows_with_goals_of_hindsight_are_learned_from(tmp_path: Path) -> None:
    overrides = [
        "agent.name=aioseed.agents.sac:agent",
        "network.name=aioseed.nets.mlp:mlp",
        "network.hidden=[8]",
        "transport.name=memory",
        "serving.max_environments=16",
        "serving.buckets=[8]",
        "serving.max_batch_rows=8",
        "replay={capacity_unrolls: 64, min_unrolls: 8, samples_per_insert: 64}",
        "replay.sampling=uniform",
        "replay.hindsight={window_steps: 20, reward: 'aioseed_gymnasium.reach:goal_reward'}",
        "training={batch_unrolls: 16, updates_per_call: 2, total_steps: 800}",
        "telemetry.tensorboard=false",
    ]
    result = await train(validate(RunConfig, apply_overrides(REACH, overrides), ""), run_dir=tmp_path / "run")
    assert result.imbalance == 0 and result.trained_steps >= 800
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["replay/samples_per_insert"] == pytest.approx(64, rel=0.2)
    assert 32 < last["replay/size_unrolls"] <= 64, "windows of 20 steps, not unrolls of one"
