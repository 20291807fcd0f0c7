from __future__ import annotations

import shlex
from pathlib import Path

from aioseed.cli.learner import Invitation
from aioseed.cli.listening import joining_words
from aioseed.host.config import load_config


def invited(*overrides: str, token_file: Path | None = None, url: str = "ws://127.0.0.1:8700") -> list[list[str]]:
    commands = Invitation("cartpole", overrides, load_config("cartpole", overrides)).commands(
        url, joining_words(token_file, None)
    )
    words = [shlex.split(command) for command in commands]
    return [line[line.index("actor") :] for line in words]


def test_the_printed_command_joins_an_actor() -> None:
    [words] = invited("actor.groups=2", "actor.envs_per_group=8")
    assert words[:6] == ["actor", "ws://127.0.0.1:8700", "--preset", "cartpole", "--envs", "16"]


def test_it_repeats_what_was_changed_about_environments_and_actors_and_nothing_else() -> None:
    changes = ("environment.name=Acrobot-v1", "actor.nice=5")
    [words] = invited("seed=3", *changes, "training.batch_unrolls=16")
    assert words[-2:] == list(changes) and "seed=3" not in words


def test_it_names_the_token_file_wherever_the_learner_was_given_one() -> None:
    [words] = invited(token_file=Path("my token"), url="ws://0.0.0.0:8700")
    assert words[words.index("--token-file") + 1] == "my token"
    assert "0.0.0.0" not in words[1]


def test_lockstep_has_a_command_for_each_place() -> None:
    lines = invited("mode=lockstep", "actor.processes=3")
    assert [words[words.index("--actor-index") + 1] for words in lines] == ["0", "1", "2"]
