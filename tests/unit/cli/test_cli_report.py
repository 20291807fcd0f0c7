from __future__ import annotations

import math

import pytest

from aioseed.cli.common import given_flags
from aioseed.cli.learner import parser as learner_parser
from aioseed.cli.listening import listening_words
from aioseed.cli.report import Spoken, as_json, farewell
from aioseed.cli.train import parser, shared_words, where
from aioseed.errors import UsageError
from aioseed.host.config import load_config
from aioseed.host.events import Finished
from aioseed.host.run import finished_before_training

DONE = Finished(
    reason="solved",
    env_steps=1010,
    trained_steps=1000,
    evaluated_steps=0,
    dropped={"shutdown": 10},
    held_steps=0,
    replay_steps=0,
    imbalance=0,
    env_steps_per_s=505.0,
    trained_steps_per_s=500.0,
    return_mean_100=481.25,
    wall_s=2.0,
    run_dir="runs/my run",
    params_sha256="ab" * 32,
    return_episodes=100,
)


@pytest.fixture(scope="module")
def config():
    return load_config("cartpole")


def spoken(command, *words):
    """Return what `command` with these words leaves to say again."""
    if command == "train":
        parsed = parser().parse_intermixed_args(words)
        own = given_flags({"--transport": parsed.transport})
    else:
        parsed = learner_parser().parse_intermixed_args(words)
        own = listening_words(parsed, parsed.listen)
    return Spoken(command, words, parsed.config, parsed.overrides, shared_words(parsed), own)


def commands(text):
    return [line.strip().partition(" ")[2] for line in text.partition("Next:\n")[2].splitlines() if line]


@pytest.fixture(autouse=True)
def short_program(monkeypatch):
    monkeypatch.setattr("aioseed.cli.report.command_line", lambda *words: "aioseed " + " ".join(map(repr, words)))


def test_the_json_fields_are_those_that_were_promised():
    assert list(as_json(DONE, 3.5)) == [
        "env_steps", "trained_steps", "dropped", "env_steps_per_s", "trained_steps_per_s", "return_mean_100", "solved",
        "wall_s", "total_s", "run_dir", "params_sha256", "reason", "ledger_imbalance",
    ]  # fmt: skip
    assert as_json(DONE, 3.5)["solved"] is True and as_json(DONE, 3.5)["total_s"] == 3.5


@pytest.mark.parametrize(("episodes", "said"), [(7, "7 episodes"), (1, "episode")])
def test_a_run_in_which_few_episodes_ended_says_of_how_many_the_mean_is(config, episodes, said):
    done = DONE._replace(reason="total_steps", return_episodes=episodes)
    text = farewell(done, config, spoken("train", "cartpole"), 3.5)
    assert f"Trained all steps: mean return 481.2 over the last {said}.\n" in text


def test_a_solved_run_says_what_was_reached_and_what_to_try(config):
    text = farewell(DONE, config, spoken("train", "cartpole", "seed=3"), 3.5)
    assert "Solved: mean return 481.2 over the last 100 episodes." in text
    assert "500 steps/s for 2.0 s of training, 3.5 s in all" in text
    assert "1,010 steps accepted = 1,000 trained + 10 dropped (shutdown)" in text
    assert commands(text) == [
        "'evaluate' 'runs/my run' '--episodes' 100 '--greedy'",
        "'train' 'cartpole' '--transport' 'grpc' 'seed=3'",
        "'learner' 'cartpole' '--listen' 'ws://127.0.0.1:8700' 'seed=3'",
    ]


def test_a_run_that_was_stopped_offers_to_go_on(config):
    text = farewell(DONE._replace(reason="stopped", return_mean_100=math.nan), config, spoken("train", "cartpole"), 3.5)
    assert "Stopped and saved: no episode has ended yet." in text
    assert commands(text)[0] == "'train' 'cartpole' '--resume' 'runs/my run'"


def test_a_learner_that_was_stopped_offers_to_go_on_listening(config):
    words = ("cartpole", "--listen", "ws://a:1", "--listen", "grpc://a:2", "seed=3")
    assert commands(farewell(DONE._replace(reason="stopped"), config, spoken("learner", *words), 3.5)) == [
        "'learner' 'cartpole' '--listen' 'ws://a:1' '--listen' 'grpc://a:2' '--resume' 'runs/my run' 'seed=3'",
        "'evaluate' 'runs/my run' '--episodes' 100 '--greedy'",
        "'train' 'cartpole' 'seed=3'",
    ]


@pytest.mark.parametrize(
    ("reason", "again"),
    [("solved", "'learner' 'cartpole' '--listen' 'ws://a:1'"),
     ("stopped", "'learner' 'cartpole' '--listen' 'ws://a:1' '--resume' 'runs/my run'")],
)  # fmt: skip
def test_where_environments_are_elsewhere_nothing_is_offered_that_would_make_one_here(config, reason, again):
    said = spoken("learner", "cartpole", "--listen", "ws://a:1")._replace(elsewhere=True)
    assert sorted(commands(farewell(DONE._replace(reason=reason), config, said, 3.5))) == [
        "'evaluate' 'runs/my run' '--episodes' 100 '--greedy' '--listen' 'ws://a:1'",
        again,
    ]


DOOR = (
    ["--token-file", "tokens", "--tls", "self-signed"],
    ["--tls-cert", "a.pem", "--tls-key", "b.pem", "--client-ca", "ca.pem"],
    ["--insecure-listen"],
)


@pytest.mark.parametrize("door", DOOR, ids=lambda words: words[0])
@pytest.mark.parametrize("reason", ["stopped", "solved"])
def test_a_learner_that_listens_again_lets_in_whom_it_let_in_before(config, monkeypatch, door, reason):
    monkeypatch.setattr("aioseed.cli.report.command_line", lambda *words: "aioseed " + " ".join(map(str, words)))
    words = ["cartpole", "--listen", "wss://a:1", *door, "--seed", "0"]
    said = commands(farewell(DONE._replace(reason=reason, run_dir="x"), config, spoken("learner", *words), 3.5))
    [again] = [command for command in said if command.startswith("learner ")]
    parsed = vars(learner_parser().parse_intermixed_args(again.split()[1:]))
    before = vars(learner_parser().parse_intermixed_args(words))
    assert parsed == {**before, "resume": "x" if reason == "stopped" else None}
    [train] = [command for command in said if command.startswith("train ")]
    assert train == f"train cartpole {'--transport grpc ' if reason == 'solved' else ''}--seed 0"


def test_flags_of_train_are_repeated_where_they_hold(config):
    said = spoken("train", "cartpole", "--transport", "memory", "--seed", "7")
    assert commands(farewell(DONE._replace(reason="stopped"), config, said, 3.5)) == [
        "'train' 'cartpole' '--transport' 'memory' '--seed' 7 '--resume' 'runs/my run'",
        "'evaluate' 'runs/my run' '--episodes' 100 '--greedy'",
        "'learner' 'cartpole' '--listen' 'ws://127.0.0.1:8700' '--seed' 7",
    ]


def test_a_run_that_trained_all_its_steps_offers_more(config):
    limited = config.model_copy(update={"training": config.training.model_copy(update={"total_steps": 500})})
    text = farewell(
        DONE._replace(reason="total_steps", evaluated_steps=3, held_steps=4),
        limited,
        spoken("train", "x.yaml", "training.total_steps=500", "seed=3"),
        3.5,
    )
    assert "+ 3 evaluated + 4 held" in text
    assert commands(text)[0] == "'train' 'x.yaml' '--resume' 'runs/my run' '--steps' '1000' 'seed=3'"


def test_steps_of_skipped_updates_are_not_called_trained(config):
    ended = DONE._replace(reason="total_steps", trained_steps=0, dropped={"nonfinite_update": 1010})
    text = farewell(ended, config, spoken("train", "cartpole"), 3.5)
    assert "Took all steps, and skipped updates that were not finite: mean return" in text
    assert "Trained all steps" in farewell(ended._replace(dropped={}), config, spoken("train", "cartpole"), 3.5)


def test_a_run_that_never_began_promises_no_checkpoint(config):
    words = ("cartpole", "--run-dir", "x", "--resume", "auto", "--steps", "9")
    text = farewell(finished_before_training("runs/x"), config, spoken("train", *words), 1.0)
    assert "Stopped before training began" in text and "runs/x" not in text
    assert commands(text) == ["'train' 'cartpole' '--run-dir' 'x' '--resume' 'auto' '--steps' '9'"]


def test_where_a_run_lives_and_how_it_is_opened(tmp_path):
    assert where(tmp_path, None, "x") == (tmp_path, "never")
    assert where(tmp_path, "auto", "x") == (tmp_path, "auto")
    assert where(None, str(tmp_path), "x") == (tmp_path, "require")
    assert where(tmp_path, f"{tmp_path}/../{tmp_path.name}", "x")[1] == "require"
    path, resume = where(None, None, "cartpole")
    assert path.parent.name == "runs" and path.name.startswith("cartpole-") and resume == "never"
    with pytest.raises(UsageError, match="name that too"):
        where(None, "auto", "x")
    with pytest.raises(UsageError, match="leave --run-dir away"):
        where(tmp_path, "elsewhere", "x")


def test_overrides_may_stand_anywhere():
    words = parser().parse_intermixed_args(["cartpole", "a=1", "--steps", "3", "b=2"])
    assert (words.config, words.overrides, words.steps) == ("cartpole", ["a=1", "b=2"], 3)
