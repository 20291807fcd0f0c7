"""Standard streams that are closed, narrow, full or read by nobody cost a command no more than what it would say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")

CODE = "import sys; from aioseed.cli.main import main; sys.exit(main())"
SPEC = ["env-spec", "--env", "CartPole-v1"]
ACTOR = ("actor", "ws://127.0.0.1:1", "--env", "CartPole-v1", "--envs", "1", "--wait-s", "0")


def run(streams: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell that redirects its streams."""
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-c", CODE, *words]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        shell, capture_output=True, text=True, timeout=60, check=False, env={**variables, **environment}
    )


@pytest.mark.parametrize(("streams", "said"), [("<&-", True), (">&-", True), ("<&- >&- 2>&-", False)])
def test_a_command_runs_with_streams_that_its_caller_closed(streams, said):
    done = run(streams, *ACTOR)
    assert done.returncode == 4
    assert ("nobody answers" in done.stderr) == said and "Traceback" not in done.stderr
    assert run(streams, "--version").returncode == 0


def test_a_letter_that_the_output_cannot_show_is_spelt_out():
    code = "from aioseed.cli.streams import make_usable; make_usable(); print('499.6 ± 3.5')"
    variables = {**os.environ, "PYTHONIOENCODING": "ascii"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)
    assert (printed.stdout, printed.stderr) == ("499.6 \\xb1 3.5\n", "")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["presets"], ["config", "schema"], SPEC])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_is_no_traceback(words, unbuffered):
    command = [sys.executable, "-c", CODE, *words]
    variables = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    # argparse keeps to itself that nobody took what it wrote at once.
    assert process.returncode == (0 if unbuffered and words == ["train", "--help"] else 130)


TALKS = """
import ctypes, gymnasium, warnings

warnings.simplefilter("always")

class Talks(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        print("hello from Python")
        ctypes.CDLL(None).puts(b"hello from C")

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        print("a step")
        return 0, 0.0, True, False, {}
"""


@pytest.mark.parametrize(
    "words", [["env-spec", "--env", "talks_at_length:Talks"], ["check-env", "talks_at_length:Talks", "--json"]]
)
def test_what_environments_print_is_no_part_of_an_answer(words, tmp_path):
    (tmp_path / "talks_at_length.py").write_text(TALKS)
    done = run("", *words, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.returncode == 0
    answers = [done.stdout] if words[0] == "env-spec" else done.stdout.splitlines()
    assert answers and all(json.loads(answer) for answer in answers)
    assert {"hello from Python", "hello from C"} <= set(done.stderr.splitlines())
    assert "ResourceWarning" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["presets"], SPEC])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_sentence(words, unbuffered):
    done = run("> /dev/full", *words, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "aioseed: the output cannot be written: No space left on device\n"
