"""Environments that users bring: found from where the command is started, and when they break, only they break."""

from __future__ import annotations

import os
import signal

import pytest

from aioseed.host.config import RunConfig
from aioseed.host.events import Progress
from aioseed.host.learner import Learner
from aioseed.presets import apply_overrides
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")]

MODULE = """
import ctypes, pathlib, time
import gymnasium, numpy as np

class Guess(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)  # CartPole's shapes: what other tests compiled is taken from the cache
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown = np.eye(4, dtype=np.float32)[self.np_random.integers(4)]
        return self.shown, {}

    def step(self, action):
        self.steps += 1
        if self.steps == 20:
            self.trouble()
        return self.shown, float(self.shown[action]), True, False, {}

    def trouble(self): pass

class Raises(Guess):
    steps = 19  # in the first step of each new one
    def trouble(self): raise RuntimeError("the simulator is gone")

class Leaves(Guess):
    def trouble(self): raise SystemExit(3)

class Hangs(Guess):
    def trouble(self): time.sleep(1000)

class Crashes(Guess):
    def trouble(self): ctypes.string_at(0)

class CrashesOnce(Guess):
    def trouble(self):
        mark = pathlib.Path("crashed")
        if not mark.exists():
            mark.touch()
            ctypes.string_at(0)

def make_env(): return Guess()
"""
NAME = "my_package.my_module"
PATIENCE_S = 200.0


@pytest.fixture
def config(small, tmp_path, monkeypatch):
    """Return a function that configures a run of an environment of a package in the current folder."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)

    def make(environment: str) -> RunConfig:
        return validate(RunConfig, apply_overrides({"environment": {"name": f"{NAME}:{environment}"}}, small), "")

    return make


async def test_actors_whose_environments_break_end_with_the_reason_and_the_others_go_on(
    start, config, tmp_path, monkeypatch, caches
):
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, caches[name])
    async with Learner(config("make_env"), listen=["ws://127.0.0.1:0"], run_dir=tmp_path / "run") as learner:

        def actor(environment: str, *more: object):
            words = ("--env", f"{NAME}:{environment}", "--envs", 2, "--groups", 1, "--wait-s", 60)
            return start("actor", learner.urls[0], *words, *more)

        healthy = actor("make_env")
        raises, leaves, crashes = actor("Raises"), actor("Leaves"), actor("Crashes")
        hangs = actor("Hangs", "--step-deadline-s", 0.5)
        broken, at_least = {raises, leaves, crashes, hangs}, None
        async for event in learner.events():
            if isinstance(event, Progress) and all(one.process.poll() is not None for one in broken):
                at_least = at_least or event.trained_steps + 100
                if event.trained_steps >= at_least:
                    break
        learner.stop()
        finished = await learner.wait()
    assert finished.imbalance == 0
    assert healthy.process.poll() is None  # it looks for its learner
    assert [one.ends() for one in (raises, leaves, hangs, crashes)] == [5, 5, 5, -signal.SIGSEGV]
    label = "aioseed actor: environment 0 (my_package.my_module:Raises)"
    assert raises.err[-1] == f"{label} failed 4 times, the last time: RuntimeError: the simulator is gone"
    assert leaves.err[-1] == "aioseed actor: the environment raised SystemExit: 3"
    assert hangs.err[-1] == "aioseed actor: the environments of group 0 hung: their step takes longer than 0.5 s"


def test_a_local_actor_that_an_environment_brought_down_is_started_again(start, config, tmp_path):
    (tmp_path / "run.json").write_text(config("CrashesOnce").model_dump_json())
    training = start("train", "run.json", "--steps", 400, "--run-dir", "run", "actor.processes=1")
    training.process.wait(PATIENCE_S)
    assert training.ends() == 0
    assert "actor 0 died (killed by signal 11, SIGSEGV) and is started again" in training.text
    log = (tmp_path / "run" / "learner.log").read_text()
    assert "Fatal Python error: Segmentation fault" in log and "my_module.py" in log


def test_a_learner_of_environments_that_are_elsewhere_offers_no_command_that_would_make_one_here(start, small):
    spec = "{observation: {dtype: float32, shape: [4]}, action: {kind: discrete, dtype: int32, shape: [], sizes: [2]}}"
    environment = f"environment={{plugin: described, name: far, options: {spec}}}"
    learner = start("learner", "cartpole", "--listen", "ws://127.0.0.1:0", environment, *small)
    learner.says("^ready after")
    learner.signal(signal.SIGTERM)
    assert learner.ends() == 0
    offered = [line for line in learner.out[learner.out.index("Next:") :] if "aioseed" in line]
    assert len(offered) == 2 and " learner " in offered[0] and "--resume" in offered[0]
    assert " evaluate " in offered[1] and offered[1].endswith("--listen ws://127.0.0.1:0")
