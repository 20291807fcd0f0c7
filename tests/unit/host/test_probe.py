"""Specs are learned from a child process: whatever an environment does there, the learner gets a sentence."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

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

def mutters():
    import ctypes
    print("loading ... ", end="")
    if os.name == "posix":
        ctypes.CDLL(None).printf(b"simulator 1.2")
    return gymnasium.make("CartPole-v1")

def launches(crashes=False):
    import subprocess
    simulator = subprocess.Popen(["sleep", "20"])
    with open("launching", "w") as file:
        file.write(str(simulator.pid))
    os.replace("launching", "launched")
    if crashes:
        os._exit(3)
    simulator.wait()

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


@pytest.mark.parametrize("make", ["chatty", "mutters"])
async def test_specs_and_task_come_back_whatever_the_environment_prints(own, make):
    described = await probe(EnvironmentConfig(name=f"own:{make}", options={"max_episode_steps": 9}))
    assert described.spec == (ArraySpec("float32", (4,)), discrete(2))
    assert described.task["max_episode_steps"] == 9


@pytest.mark.parametrize("name", ["aioseed", "numpy", "random"])
async def test_a_file_beside_the_environment_stands_in_for_no_module_of_its_name(own, name):
    (own / f"{name}.py").write_text("raise RuntimeError('somebody else's file')")
    described = await probe(EnvironmentConfig(name="own:chatty"))
    assert described.spec.action == discrete(2)


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


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("crashes", [True, False])
async def test_what_a_child_started_ends_with_it(own, crashes):
    config = EnvironmentConfig(name="own:launches", options={"kwargs": {"crashes": crashes}})
    task = asyncio.create_task(probe(config))
    if not crashes:
        while not (own / "launched").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(EnvironmentFailed if crashes else asyncio.CancelledError):
        await task
    simulator = int((own / "launched").read_text())
    async with asyncio.timeout(5.0):
        while is_running(simulator):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_the_program_itself_defines_is_told_to_move_into_a_module() -> None:
    with pytest.raises(ConfigError, match=r"put it into a module and name it module:Mine$") as caught:
        await probe(EnvironmentConfig(name="__main__:Mine"))
    assert (caught.value.path, caught.value.value) == ("environment.name", "__main__:Mine")
