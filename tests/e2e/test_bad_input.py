"""Bad input of every kind: one clear sentence on standard error, an exit code that is not 0, and nothing lost."""

from __future__ import annotations

import socket
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.timeout(180)

NOBODY = "ws://127.0.0.1:9"


class Bad(NamedTuple):
    words: list[str]
    code: int
    sentence: str


CASES = {
    "unknown command": Bad(["trian"], 2, 'there is no command "trian" (did you mean "train"?)'),
    "unknown preset": Bad(["train", "cartpoel"], 2, 'there is no preset "cartpoel" (did you mean "cartpole"'),
    "no preset": Bad(["train"], 2, "the following arguments are required: PRESET-or-FILE (see aioseed train --help)"),
    "unknown key": Bad(
        ["train", "cartpole", "trainig.seed=1"], 2, 'trainig is not a known key (did you mean "training"'
    ),
    "wrong value": Bad(["train", "cartpole", "--steps", "-3"], 2, "training.total_steps is -3: expected"),
    "unknown transport": Bad(["train", "cartpole", "--transport", "pigeon"], 2, 'there is no transport "pigeon"'),
    "wrong environment": Bad(["train", "cartpole", "environment.name=CartPol-v1"], 2, 'no environment "CartPol-v1"'),
    "space": Bad(["train", "catch-r2d2", "environment.name=Pendulum-v1"], 2, "learns one discrete action"),
    "unreachable run": Bad(["evaluate", "nowhere"], 2, "there is no run directory nowhere"),
    "not loopback": Bad(["learner", "cartpole", "--listen", "ws://0.0.0.0:0"], 2, "say --insecure-listen"),
    "no address": Bad(["learner", "cartpole", "--listen", "8700"], 2, '"8700" is no address'),
    "no learner": Bad(["actor", NOBODY, "--env", "CartPole-v1", "--wait-s", "0.2"], 4, "did not answer within 0.2 s"),
    "unknown suite": Bad(["suite", "dmlab3", "--preset", "cartpole"], 2, 'no suite "dmlab3" (did you mean "dmlab30"'),
    "no environment": Bad(["env-spec", "--env", "CartPol-v1"], 2, 'there is no environment "CartPol-v1"'),
}


def test_every_mistake_is_said_in_one_sentence_and_nothing_is_left(start_in, tmp_path):
    """All at once, each in an empty folder of its own; one test, so that two workers do not start them twice."""
    commands = {}
    for name, bad in CASES.items():
        (tmp_path / name).mkdir()
        commands[name] = start_in(tmp_path / name, *bad.words)
    for name, bad in CASES.items():
        sentence = commands[name].fails(bad.code)
        assert bad.sentence in sentence and sentence.startswith("aioseed"), name
        assert list((tmp_path / name).iterdir()) == [], name


@pytest.mark.parametrize("scheme", ["ws", "grpc"])
def test_a_port_in_use(start, small, tmp_path, scheme):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        sentence = start("learner", "cartpole", "--listen", f"{scheme}://{address}", *small).fails(2)
    assert address in sentence and "in use" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_in_use(start, small, tmp_path):
    owner = start("train", "cartpole", "--run-dir", "run", *small)
    owner.says("^listening")
    second = start("train", "cartpole", "--run-dir", "run", "--resume", "auto", *small)
    sentence = second.fails(2)
    assert f"the run directory run is in use by another learner (process {owner.process.pid} on " in sentence
    assert (tmp_path / "run" / "config.json").exists()
