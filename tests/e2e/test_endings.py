"""How a run ends before its time: what is saved, what the exit code is, and that no process is left."""

from __future__ import annotations

import os
import signal

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
    actors = actors_of(tmp_path / "run")
    assert len(actors) == 2
    training.signal(signal.SIGINT)
    assert training.ends() == 0, training.text
    assert "Stopped and saved" in training.text
    for actor in actors:
        wait_until_gone(actor)
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    again = start("train", "cartpole", "--json", "--resume", tmp_path / "run", "--steps", 1, *small)
    assert again.succeeds()["trained_steps"] > 1


def test_a_second_ctrl_c_ends_at_once_with_130_and_takes_the_actors_along(
    training, tmp_path, actors_of, wait_until_gone
):
    actors = actors_of(tmp_path / "run")
    assert len(actors) == 2
    training.signal(signal.SIGINT)
    training.says("press Ctrl-C again")
    training.signal(signal.SIGINT)
    assert training.ends() == 130, training.text
    for actor in actors:
        wait_until_gone(actor)


def test_actors_end_by_their_lifeline_when_the_command_is_killed(training, tmp_path, actors_of, wait_until_gone):
    actors = actors_of(tmp_path / "run")
    assert len(actors) == 2
    training.signal(signal.SIGKILL)
    training.process.wait()
    for actor in actors:
        wait_until_gone(actor)


def test_sigterm_during_the_start_ends_with_0_and_leaves_nothing_behind(start, small, tmp_path):
    command = start("train", "cartpole", "--run-dir", tmp_path / "runs" / "run", *small)
    command.says("^listening")
    command.signal(signal.SIGTERM)
    assert command.ends() == 0, command.text
    assert "Stopped before training began" in command.text
    assert list(tmp_path.iterdir()) == []
