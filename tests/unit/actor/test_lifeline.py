"""The standard input of children is their lifeline: an environment that reads it is told that nobody answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ASKS = """
import gymnasium

def make():
    if input("Do you accept the licence? ") != "yes":
        raise RuntimeError("it was not accepted")
    return gymnasium.make("CartPole-v1")
"""
PROBE = ["-m", "aioseed.actor.probe"]
ACTOR = ["-m", "aioseed.cli.actor", "ws://127.0.0.1:1", "--env", "asks_a_question:make", "--envs", "1", "--wait-s", "0"]


@pytest.mark.parametrize("words", [PROBE, [*ACTOR, "--lifeline-stdin"]])
def test_an_environment_that_asks_a_question_hears_that_nobody_answers(tmp_path, words):
    (tmp_path / "asks_a_question.py").write_text(ASKS)
    with subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        if words is PROBE:
            process.stdin.write(json.dumps({"name": "asks_a_question:make"}).encode() + b"\n")
            process.stdin.flush()
        try:
            assert process.wait(30) == 5  # though the lifeline is open
        finally:
            process.kill()
        said = process.stdout.read() + process.stderr.read()
    assert b"asks_a_question:make could not be made: EOFError: EOF when reading a line" in said
