"""The policy that a page computes without aioseed is the one that was trained, and one checkpoint is enough."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aioseed import load_policy
from aioseed.errors import CheckpointError
from aioseed.host.config import RunConfig
from aioseed.host.evaluate import evaluate
from aioseed.host.train import train
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

from .pages import blocks

pytestmark = pytest.mark.timeout(120)

SMALL = [
    "transport.name=memory",
    "actor.processes=1",
    "actor.envs_per_group=4",
    "serving.max_environments=16",
    "serving.buckets=[16]",
    "serving.max_batch_rows=16",
    "training.total_steps=6000",
    "training.checkpoint.every_updates=3",
    "stop.return_mean=null",
    "telemetry.tensorboard=false",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = validate(RunConfig, apply_overrides(read("cartpole"), SMALL), "")
    path = tmp_path_factory.mktemp("checkpoints") / "run"
    asyncio.run(train(config, run_dir=path))
    return path


def checkpoints(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "checkpoints").iterdir())


def shown(arrays: Path) -> Callable[[np.ndarray], int]:
    (program,) = (block.text for block in blocks() if "load_file(" in block.text)
    named = program.replace("runs/a/checkpoints/000000012800/arrays.safetensors", str(arrays))
    assert named != program
    names: dict[str, Any] = {}
    exec(named, names)
    policy: Callable[[np.ndarray], int] = names["policy"]
    return policy


def test_the_page_computes_the_policy_that_was_trained(run_dir: Path) -> None:
    checkpoint = checkpoints(run_dir)[-1]
    theirs, ours = shown(checkpoint / "arrays.safetensors"), load_policy(checkpoint)
    observations = np.random.default_rng(0).normal(0, 1, (200, 4)).astype(np.float32)
    chosen = [theirs(observation) for observation in observations]
    assert chosen == [int(ours(observation)) for observation in observations]
    assert set(chosen) == {0, 1}


def test_an_older_checkpoint_is_chosen_by_its_folder(run_dir: Path, tmp_path: Path) -> None:
    older, newest = checkpoints(run_dir)[-2:]
    assert load_policy(run_dir).version == load_policy(newest).version == int(newest.name)
    assert load_policy(older).version == int(older.name) < int(newest.name)
    measured = asyncio.run(evaluate(older, episodes=2, overrides=["environment.options.max_episode_steps=3"]))
    assert measured.policy_version == int(older.name)
    assert measured.length_mean_steps == 3
    copy = tmp_path / older.name
    shutil.copytree(older, copy)
    assert load_policy(copy).version == int(older.name)
    assert asyncio.run(evaluate(copy, episodes=2)).policy_version == int(older.name)


def test_what_is_no_checkpoint_is_said(run_dir: Path, tmp_path: Path) -> None:
    newest = checkpoints(run_dir)[-1]
    with pytest.raises(CheckpointError, match="000000000000 is no sound checkpoint: No such file or directory"):
        load_policy(newest.with_name("000000000000"))
    with pytest.raises(CheckpointError, match="called otherwise than a checkpoint: a copy keeps its name"):
        load_policy(shutil.copytree(newest, tmp_path / "best"))
    damaged = shutil.copytree(newest, tmp_path / newest.name)
    (damaged / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no sound checkpoint: "):
        load_policy(damaged)
