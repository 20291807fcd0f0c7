from __future__ import annotations

import os
import signal
import time

import pytest

from aioseed.chaos.processes import Process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

LONGEST_S = 50.0
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
print("ready", flush=True)
while True:
    time.sleep(9)
"""


def wait_for_words(process: Process) -> None:
    until_s = time.monotonic() + LONGEST_S
    while not process.lines:
        assert process.alive and time.monotonic() < until_s


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a module with this text."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    processes = []

    def start(text: str) -> Process:
        (tmp_path / "play.py").write_text(text)
        processes.append(Process(["play"], tmp_path / "out.txt"))
        return processes[-1]

    yield start
    for process in processes:
        process.end(0.0)


def test_what_a_process_says_is_kept_and_written(run, tmp_path):
    process = run("print('one'); print('two'); raise SystemExit(3)")
    assert process.ends(LONGEST_S) == 3 and not process.alive
    assert process.lines == ["one", "two"]
    assert [line.split()[-1] for line in (tmp_path / "out.txt").read_text().splitlines()] == ["one", "two"]
    process.signal(signal.SIGKILL)  # nobody is there: no harm


def test_one_that_does_not_end_is_said_so_and_ended_by_force(run):
    process = run(STUBBORN)
    wait_for_words(process)
    assert process.ends(0.0) is None and process.alive
    process.end(0.0)
    assert process.ends(LONGEST_S) == -signal.SIGKILL
