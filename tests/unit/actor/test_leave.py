"""What environments leave behind does not hold up the end of a process: threads, and what multiprocessing waits for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

THREAD = "threading.Thread(target=threading.Event().wait, daemon=False).start()"
CHILD = "multiprocessing.get_context('spawn').Process(target=time.sleep, args=(3600,)).start()"
SHORT = "threading.Thread(target=lambda: (goes_on.wait(), print('written'))).start()"
QUEUE = "self.queue = multiprocessing.Queue(); self.queue.put(bytes(2**22))"
POOL = "type(self).pool = concurrent.futures.ThreadPoolExecutor(); self.pool.submit(int).result()"
OWN = """
import concurrent.futures, gymnasium, multiprocessing, threading, time

class Leaves(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        LEFT

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 0, 0.0, True, False, {}
"""
COMMAND = """
import sys
from aioseed.actor import leave
from aioseed.cli.main import main
leave.WAIT_S = 0.0
sys.exit(main())
"""
PATIENT = COMMAND.replace("0.0", "3600.0")
CHECKPOINT = f"""
import threading
from aioseed.actor import leave

class Writing(threading.Thread):
    def __init__(self):
        super().__init__(name="aioseed-checkpoint_0")
        self.is_waited_for = threading.Event()

    def run(self):
        self.is_waited_for.wait()
        print("saved")

    def join(self, timeout=None):
        self.is_waited_for.set()
        super().join(timeout)

leave.WAIT_S = 0.0
Writing().start()
{THREAD}
leave.leave(3)
"""
PROBE = """
import runpy, sys
from aioseed.actor import leave
leave.WAIT_S = 0.0
sys.modules.pop("aioseed.actor.probe", None)
runpy.run_module("aioseed.actor.probe", run_name="__main__")
"""


def run(code, *words, source="", tmp_path=None, told=None):
    if tmp_path is not None:
        (tmp_path / "leaves_much.py").write_text(OWN.replace("LEFT", source))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", code, *words], input=told, capture_output=True, text=True, timeout=50, env=environment
    )


@pytest.mark.parametrize("left", [THREAD, CHILD, QUEUE])
@pytest.mark.parametrize("words", [["env-spec", "--env"], ["check-env"]])
def test_a_command_ends_though_its_environment_left_something(tmp_path, words, left):
    done = run(COMMAND, *words, "leaves_much:Leaves", source=left, tmp_path=tmp_path)
    assert done.returncode == 0 and "discrete" in done.stdout


@pytest.mark.parametrize("left", [THREAD, CHILD])
def test_an_environment_that_leaves_something_is_described_to_a_learner(tmp_path, left):
    section = json.dumps({"name": "leaves_much:Leaves"}) + "\n"
    # Its standard input stays open, as a learner keeps it: to end with it would be no proof.
    with subprocess.Popen(
        [sys.executable, "-c", PROBE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    ) as process:
        (tmp_path / "leaves_much.py").write_text(OWN.replace("LEFT", left))
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(section.encode())
        process.stdin.flush()
        try:
            assert process.wait(50) == 0
        finally:
            process.kill()
        assert json.loads(process.stdout.read())["action"]["kind"] == "discrete"


def test_a_run_in_one_process_ends_though_its_environment_left_something(tmp_path):
    short = "stop.return_mean=null actor.envs_per_group=1 --transport memory --steps 1 --json --run-dir".split()
    words = ["train", "cartpole", "environment.name=leaves_much:Leaves", *short, str(tmp_path / "run")]
    left = f"import sys; 'probe' in sys.argv[0] or {THREAD}"  # it would wait its five seconds first
    done = run(COMMAND, *words, source=left, tmp_path=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["trained_steps"], done.stderr


def test_idle_threads_of_a_pool_are_not_waited_for(tmp_path):
    done = run(PATIENT, "env-spec", "--env", "leaves_much:Leaves", source=POOL, tmp_path=tmp_path)
    assert done.returncode == 0 and "discrete" in done.stdout


def test_a_thread_that_ends_by_itself_is_waited_for():
    code = (
        "import threading; from aioseed.actor.leave import leave; goes_on = threading.Event();"
        f"{SHORT}; leave(3); print('goes on'); goes_on.set()"
    )
    done = run(code)
    assert done.stdout.splitlines() == ["goes on", "written"] and done.returncode == 0


def test_a_thread_that_ends_by_itself_is_waited_for_beside_an_environment_that_hangs():
    code = (
        "import sys, threading; from aioseed.cli import env_spec, main; goes_on = threading.Event();"
        "threading.Thread(target=threading.Event().wait, name='aioseed-check', daemon=True).start();"
        f"env_spec.main = lambda words: (goes_on.set(), 5)[1]; {SHORT}; sys.exit(main.main())"
    )
    done = run(code, "env-spec")
    assert done.stdout.splitlines() == ["written"] and done.returncode == 5


def test_what_is_our_own_may_take_its_time_beside_what_is_left():
    done = run(CHECKPOINT)
    assert done.stdout == "saved\n" and done.returncode == 3


def test_where_nothing_is_left_the_process_ends_as_always():
    assert run("from aioseed.actor.leave import leave; leave(3); print('goes on')").stdout == "goes on\n"
