from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioseed.actor.run import ActorSummary
from aioseed.actor.token import token_path, write_token
from aioseed.cli import actor
from aioseed.errors import (
    AuthenticationError,
    ConnectError,
    EnvironmentFailed,
    ProtocolError,
    RefusedError,
)
from aioseed.transport.token import Secret

URL = "ws://127.0.0.1:9"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Let the command call a function that notes its arguments instead of running an actor."""
    noted: list[dict[str, Any]] = []

    async def note(url: str, make_env: object, **options: Any) -> ActorSummary:
        noted.append({"url": url, "make_env": make_env, **options})
        return ActorSummary("run", 1, 0)

    monkeypatch.setattr(actor, "run_actor", note)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("AIOSEED_TOKEN", raising=False)
    return noted


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    async def fail(url: str, make_env: object, **options: Any) -> ActorSummary:
        raise error

    monkeypatch.setattr(actor, "run_actor", fail)


def test_an_environment_by_name_is_judged_by_its_specs_alone(calls: list[dict[str, Any]]) -> None:
    assert actor.main([URL, "--env", "CartPole-v1", "--envs", "16", "--role", "evaluate", "--vectorized"]) == 0
    [call] = calls
    assert call["make_env"].name == "CartPole-v1" and call["make_env"].options == {"vectorized": True}
    assert (call["environments"], call["groups"], call["role"], call["task"]) == (16, 2, "evaluate", None)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], object]]:
    """Let the command read what the test says from its standard input."""
    reading, writing = os.pipe()
    real = os.read
    monkeypatch.setattr(actor.os, "read", lambda number, count: real(reading if number == 0 else number, count))

    def write(said: bytes) -> None:
        os.write(writing, said)
        os.close(writing)

    yield write
    os.close(reading)


def test_a_program_that_starts_actors_says_the_configuration_on_standard_input(
    calls: list[dict[str, Any]], say: Callable[[bytes], object]
) -> None:
    say(b'{"environment": {"name": "CartPole-v1"}, "actor": {"envs_per_group": 8}}\nand the lifeline')
    assert actor.main([URL, "--preset", "-"]) == 0
    [call] = calls
    assert call["task"].name == call["make_env"].name == "CartPole-v1" and call["environments"] == 16


@pytest.mark.parametrize("said", [b"", b'{"environment":', b"[1]\n", b'{"environment": {"nome": 1}}\n'])
def test_what_is_no_configuration_on_standard_input_is_said(
    calls: list[dict[str, Any]], say: Callable[[bytes], object], said: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    say(said)
    assert actor.main([URL, "--preset", "-"]) == 2
    told = capsys.readouterr().err
    assert ("the first line of standard input is no configuration" in told) != ("nome" in told) and not calls


def test_a_preset_brings_its_task_and_its_sizes(calls: list[dict[str, Any]]) -> None:
    words = ["--preset", "cartpole", "actor.envs_per_group=32", "--actor-id", "a", "--actor-index", "3"]
    assert actor.main([URL, *words]) == 0
    [call] = calls
    assert call["task"].name == call["make_env"].name == "CartPole-v1"
    assert (call["environments"], call["groups"]) == (64, 2)
    assert (call["actor_id"], call["actor_index"]) == ("a", 3)


def test_flags_and_overrides_change_the_configuration_wherever_they_stand(calls: list[dict[str, Any]]) -> None:
    words = ["--wait-s", "1", "--preset", "cartpole", "actor.groups=4", "--reconnect-s", "2", "actor.envs_per_group=3"]
    assert actor.main([URL, *words]) == 0
    [call] = calls
    assert (call["environments"], call["groups"], call["wait_s"], call["reconnect_s"]) == (12, 4, 1.0, 2.0)


def test_few_environments_make_fewer_groups_unless_groups_were_asked_for(calls: list[dict[str, Any]]) -> None:
    assert actor.main([URL, "--env", "CartPole-v1", "--envs", "1"]) == 0
    assert actor.main([URL, "--env", "CartPole-v1", "--envs", "1", "--groups", "2"]) == 0
    assert [call["groups"] for call in calls] == [1, 2]


def test_a_file_that_was_named_comes_before_the_environment_and_before_what_a_learner_left(
    calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def token() -> Secret | None:
        assert actor.main([URL, "--env", "CartPole-v1", *words]) == 0
        found: Secret | Callable[[], Secret | None] | None = calls[-1]["token"]
        return found() if callable(found) else found

    words: list[str] = []
    assert token() is None
    write_token(token_path(URL), Secret("left"))
    assert token() == Secret("left")
    monkeypatch.setenv("AIOSEED_TOKEN", "from the environment")
    assert token() == Secret("from the environment")
    write_token(tmp_path / "mine", Secret("named"))
    words = ["--token-file", str(tmp_path / "mine")]
    assert token() == Secret("named")


def test_no_file_is_looked_for_when_the_learner_is_elsewhere(calls: list[dict[str, Any]]) -> None:
    write_token(token_path("ws://10.0.0.1:9"), Secret("of another machine"))
    assert actor.main(["ws://10.0.0.1:9", "--env", "CartPole-v1"]) == 0
    assert calls[0]["token"] is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProtocolError("malformed", "the learner stutters"), 1),
        (RefusedError("observation", "the shapes differ"), 3),
        (AuthenticationError("the token was not accepted"), 3),
        (ConnectError("nobody is there", url=URL), 4),
        (EnvironmentFailed("the wheel came off"), 5),
    ],
)
def test_every_failure_is_one_sentence_and_an_exit_code(
    calls: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    fail_with(monkeypatch, error)
    assert actor.main([URL, "--env", "CartPole-v1"]) == code
    assert capsys.readouterr().err == f"aioseed actor: {error}\n"


def test_an_interrupted_actor_ends_with_130(calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert actor.main([URL, "--env", "CartPole-v1"]) == 130


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--env", "x"], "the following arguments are required: url"),
        ([URL], "one of the arguments --preset --env is required"),
        ([URL, "--env", "x", "--preset", "y"], "not allowed with"),
        ([URL, "--env", "CartPole-v1", "--envs", "many"], "invalid int value"),
        ([URL, "--preset", "cartpoel"], 'there is no preset "cartpoel" (did you mean "cartpole"'),
        ([URL, "--preset", "cartpole", "actor.grops=3"], 'actor.grops is not a known key (did you mean "groups"?)'),
        ([URL, "--env", "CartPole-v1", "--wait-s=-1"], "actor.wait_s is -1"),
        ([URL, "--env", "CartPole-v1", "actor=3"], "actor is 3"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert actor.main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("aioseed actor: ") and said.count("\n") == 1
    assert not calls


def test_options_that_no_hello_could_carry_are_one_sentence(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert actor.main([URL, "--preset", "cartpole", f"environment.options.kwargs={{text: {'x' * 20_000}}}"]) == 2
    assert capsys.readouterr().err == (
        "aioseed actor: environment.options: the task configuration is larger than 16384 bytes\n"
    )
    assert not calls


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            [URL, "--env", "CartPole-v1", "--wait-s", "0.3"],
            4,
            "did not answer within 0.3 s",
        ),
        (["ws://gpu-box", "--env", "CartPole-v1"], 2, "a host and a port are needed"),
        (["ws://[::1:1", "--env", "CartPole-v1"], 2, "Invalid IPv6 URL"),
        ([URL, "--env", "CartPole-v1", "--fingerprint", "ab" * 32], 2, "has no TLS"),
        ([URL, "--env", "CartPole-v1", "--envs", "0"], 2, "steps at least one environment, and 0 were asked for"),
    ],
)
def test_the_module_runs_as_a_command(words: list[str], code: int, sentence: str) -> None:
    command = [sys.executable, "-m", "aioseed.cli.actor", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == code, ended.stderr
    assert sentence in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_the_command_imports_nothing_of_a_learner() -> None:
    heavy = "{'jax', 'flax', 'optax', 'safetensors', 'grpc', 'gymnasium'}"
    code = f"import sys, aioseed.cli.actor; print(sorted({heavy} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True)
    assert ended.stdout == "[]\n"
