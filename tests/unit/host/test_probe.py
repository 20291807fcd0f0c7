"""Specs are learned from a child process: whatever an environment does there, the learner gets a sentence."""

from __future__ import annotations

import asyncio
import sys

import pytest

from aioseed.actor.config import EnvironmentConfig
from aioseed.errors import ConfigError, EnvironmentFailed, PluginError
from aioseed.host.probe import probe
from aioseed.specs import ArraySpec, discrete

OWN = """
import os, sys
import gymnasium

def chatty():
    print("an environment that talks", flush=True)
    print("and complains", file=sys.stderr)
    return gymnasium.make("CartPole-v1")

def crashes():
    print("about to crash")
    os._exit(3)

def hangs():
    open("hanging", "w").close()
    import time
    time.sleep(600)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_specs_and_task_come_back_whatever_the_environment_prints(own):
    described = await probe(EnvironmentConfig(name="own:chatty", options={"max_episode_steps": 9}))
    assert described.spec == (ArraySpec("float32", (4,)), discrete(2))
    assert described.task["max_episode_steps"] == 9


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"name": "CartPol-v1"}, ConfigError, 'no environment "CartPol-v1" (did you mean "CartPole-v1"'),
        ({"name": "own:nothing"}, PluginError, "nothing"),
        ({"name": "own:crashes"}, EnvironmentFailed, "own:crashes could not be built: its process ended with code 3"),
    ],
)
async def test_what_goes_wrong_in_the_child_is_raised_here(own, config, error, said):
    with pytest.raises(error) as caught:
        await probe(EnvironmentConfig(**config))
    assert said in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="waits for a file")
async def test_cancelling_ends_a_child_that_hangs(own):
    task = asyncio.create_task(probe(EnvironmentConfig(name="own:hangs")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
