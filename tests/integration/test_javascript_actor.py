"""The actor in JavaScript works as its page says: another reading of the wire than ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aioseed.host.config import RunConfig
from aioseed.host.events import Progress
from aioseed.host.learner import Learner
from aioseed.presets import apply_overrides, read
from aioseed.testing.proxy import Proxy
from aioseed.transport.token import Secret
from aioseed.validation import validate

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER = DOCS / "examples" / "javascript"
SMALL = [
    "serving.max_environments=16",
    "serving.max_batch_rows=16",
    "serving.buckets=[16]",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "network={name: mlp, hidden: [16]}",
    "stop.return_mean=null",
    "telemetry.every_s=0.1",
    "telemetry.tensorboard=false",
]
TOKEN = "a-token-for-javascript"
CARTPOLE = read(str(FOLDER / "cartpole.yaml"))


def _node() -> list[str]:
    node = shutil.which("node")
    if node is None:
        return []
    major = int(
        subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout[1:].split(".")[0]
    )
    return [] if major < 20 else [node, *(["--experimental-websocket"] if major < 22 else [])]


NODE = _node()
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not NODE, reason="there is no Node of version 20 or later"),
]


def config(*overrides: str) -> RunConfig:
    return validate(RunConfig, apply_overrides(CARTPOLE, [*SMALL, *overrides]), "")


@contextlib.asynccontextmanager
async def actor(url: str, *words: str, token: str = TOKEN) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *NODE, str(FOLDER / "actor.mjs"), url, *words,
        env={**os.environ, "AIOSEED_TOKEN": token}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def test_it_writes_and_reads_the_vectors() -> None:
    words = [NODE[0], str(FOLDER / "vectors.mjs"), str(DOCS / "reference" / "wire-vectors.json")]
    checked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert int(checked.stdout.split()[0]) >= 14


async def test_a_run_is_trained_by_it_and_a_cut_connection_changes_nothing(tmp_path: Path) -> None:
    cuts = 0
    learner = Learner(config("training.total_steps=4000"), run_dir=tmp_path / "run", token=Secret(TOKEN))
    async with learner, Proxy("127.0.0.1", urlsplit(learner.urls[0]).port or 0) as proxy:
        async with actor(f"ws://127.0.0.1:{proxy.port}", "--envs", "8") as child:
            async for event in learner.events():
                if isinstance(event, Progress) and event.trained_steps > 0 and cuts == 0:
                    cuts = proxy.cut()
            said = (await child.communicate())[1].decode()
    finished = await learner.wait()
    assert child.returncode == 0, said
    assert said.splitlines()[-1] == "the run is over" and said.count("joined run with 8 environments") == 2
    assert finished.trained_steps >= 4000
    assert cuts == 1 and set(finished.dropped) <= {"shutdown"}, finished.dropped
    assert finished.imbalance == 0


async def test_a_wrong_token_and_another_spec_are_told_apart(tmp_path: Path) -> None:
    learner = Learner(config(), run_dir=tmp_path / "run", token=Secret(TOKEN))
    async with learner:
        async with actor(learner.urls[0], token="another") as child:
            assert b"it did not accept the token" in await child.stderr.readline()
        other = tmp_path / "other.mjs"
        other.write_text((FOLDER / "cartpole.mjs").read_text().replace("shape: [4]", "shape: [5]"))
        async with actor(learner.urls[0], "--env", other.as_uri()) as child:
            _, said = await child.communicate()
            assert child.returncode == 3, said
            assert "refused: " in said.decode() and "observation" in said.decode()
