"""The example of embedding works as its page says."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

from aioseed.host.config import RunConfig
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

DOCS = Path(__file__).resolve().parents[2] / "docs"
SMALL = [
    "actor.envs_per_group=4",
    "serving.max_environments=16",
    "serving.max_batch_rows=8",
    "serving.buckets=[8]",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "training.total_steps=2000",
    "network={name: mlp, hidden: [16]}",
    "telemetry.every_s=0.1",
]


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("embed_learner", DOCS / "examples" / "embed_learner.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config():
    return validate(RunConfig, apply_overrides(read("cartpole"), SMALL), "")


@pytest.mark.timeout(120)
async def test_the_example_trains_and_plays(example, config, tmp_path, caplog):
    caplog.set_level(logging.INFO, "embedding")
    assert 8 <= await example.main(config, tmp_path / "run") <= 500
    assert "steps, mean return" in caplog.text
    assert "total_steps after 2" in caplog.text and f"saved in {tmp_path / 'run'}" in caplog.text


def test_the_page_shows_the_file_that_is_tested():
    module = (DOCS / "examples" / "embed_learner.py").read_text()
    assert module.split('"""\n\n', 1)[1] in (DOCS / "howto" / "embed.md").read_text()
