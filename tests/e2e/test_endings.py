"""How a run ends before its time: what is saved, what the exit code is, and that no process is left."""

from __future__ import annotations

import os
import signal
import time

import pytest

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")]


@pytest.fixture
def training(start, small, tmp_path):
    """A run that trains, its two actors at work."""
    command = start("train", "cartpole", "--run-dir", tmp_path / "run", *small)
    command.says("^ready")
    command.says(r"steps .* actor")
    return command


def test_ctrl_c_saves_and_ends_with_0_and_the_run_goes_on_later(
    training, start, small, tmp_path, actors_of, wait_until_gone
):
    actors = actors_of(training)
    assert len(actors) == 2
    training.signal(signal.SIGINT)
    assert training.ends() == 0, training.text
    assert "Stopped and saved" in training.text
    for actor in actors:
        wait_until_gone(actor)
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    again = start("train", "cartpole", "--json", "--resume", tmp_path / "run", "--steps", 1, *small)
    assert again.succeeds()["trained_steps"] > 1


def test_a_second_ctrl_c_ends_at_once_with_130_and_takes_the_actors_along(training, actors_of, wait_until_gone):
    actors = actors_of(training)
    assert len(actors) == 2
    training.signal(signal.SIGINT)
    training.says("press Ctrl-C again")
    training.signal(signal.SIGINT)
    assert training.ends() == 130, training.text
    for actor in actors:
        wait_until_gone(actor)


def test_actors_end_by_their_lifeline_when_the_command_is_killed(training, actors_of, wait_until_gone):
    actors = actors_of(training)
    assert len(actors) == 2
    training.signal(signal.SIGKILL)
    training.process.wait()
    for actor in actors:
        wait_until_gone(actor)


def test_an_actor_that_dies_is_started_again_where_the_run_directory_was_moved(training, tmp_path, actors_of):
    """What it is told must not lie in the directory: its name may even lead to another run by now."""
    away = (tmp_path / "run").rename(tmp_path / "away")
    os.kill(actors_of(training)[0], signal.SIGKILL)
    training.says("is started again")
    training.says("dropped .* lease_ended")
    deadline_s = time.monotonic() + 60.0
    while (away / "learner.log").read_text().count("joined run run") < 3:
        assert training.process.poll() is None and time.monotonic() < deadline_s, training.text
        time.sleep(0.05)
    away.rename(tmp_path / "run")
    training.signal(signal.SIGINT)
    assert training.ends() == 0, training.text


def test_sigterm_during_the_start_ends_with_0_and_leaves_nothing_behind(start, small, tmp_path):
    command = start("train", "cartpole", "--run-dir", tmp_path / "runs" / "run", *small)
    command.says("^listening")
    command.signal(signal.SIGTERM)
    assert command.ends() == 0, command.text
    assert "Stopped before training began" in command.text
    assert list(tmp_path.iterdir()) == []
