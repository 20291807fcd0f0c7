"""``aioseed learner`` and ``aioseed actor``: two transports at once into one run, and evaluation by remote actors."""

from __future__ import annotations

import shlex

import pytest

pytestmark = pytest.mark.timeout(120)


def words_of(line: str) -> list[str]:
    """Return the words of a printed command behind the program."""
    words = shlex.split(line)
    return words[words.index("actor") :]


def test_actors_over_both_transports_train_the_run_that_local_ones_train(trained, start, small):
    """Lockstep needs both actors for every batch and gives equal bits, so the digest says that both took part."""
    listen = ("--listen", "ws://127.0.0.1:0", "--listen", "grpc://127.0.0.1:0")
    learner = start("learner", "cartpole", "--json", *listen, "--steps", 1500, *small, "mode=lockstep")
    printed = [learner.says("^join with:  (.*)")[1] for _ in range(4)]
    websocket = next(line for line in printed if "ws://" in line and "--actor-index 0" in line)
    grpc = next(line for line in printed if "grpc://" in line and "--actor-index 1" in line)
    url = words_of(websocket)[1]

    actors = [start(*words_of(websocket), "--compression", "deflate"), start(*words_of(grpc), "--compression", "none")]
    stranger = start("actor", url, "--env", "Acrobot-v1", "--envs", "2", "--wait-s", "60")
    assert stranger.ends() == 3, stranger.text
    assert "observation.shape.0 differs: this run has 4, the actor has 6" in stranger.err[-1]
    for actor in actors:
        assert actor.ends() == 0, actor.text
        assert any("joined run" in line for line in actor.err)
    assert learner.succeeds()["params_sha256"] == trained[1]["params_sha256"]


def test_evaluation_with_local_environments(trained, start):
    command = start("evaluate", trained[0], "--episodes", "20", "--greedy", "--json")
    result = command.succeeds()
    assert list(result)[:3] == ["return_mean", "return_std", "episodes"]
    assert result["episodes"] == 20 and result["return_mean"] == result["length_mean_steps"] >= 8
    assert command.err == []


def test_evaluation_with_a_remote_actor(trained, start):
    command = start("evaluate", trained[0], "--episodes", "20", "--listen", "grpc://127.0.0.1:0")
    actor = start(*words_of(command.says("^join with:  (.*)")[1]))
    assert actor.ends() == 0, actor.text
    assert command.ends() == 0, command.text
    assert "over 20 episodes" in command.out[-1]
