"""What actors are configured with goes through JSON, to other processes and machines, and comes out as it was."""

from __future__ import annotations

import pytest

from aioseed.actor.config import ActorConfig, EnvironmentConfig
from aioseed.actor.task import task_of
from aioseed.errors import ConfigError
from aioseed.validation import validate


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_an_option_that_json_would_make_null_is_refused_with_its_path(text: str) -> None:
    options = {"wrappers": [{"name": "ClipReward"}, {"name": "ClipReward", "kwargs": {"max_reward": float(text)}}]}
    with pytest.raises(ConfigError) as caught:
        validate(EnvironmentConfig, {"name": "Pendulum-v1", "options": options}, "environment")
    assert caught.value.path == "environment.options"
    wrong = f"options.wrappers.1.kwargs.max_reward is {text}"
    assert str(caught.value) == f"environment.options: {wrong}: expected a finite number"


def test_so_is_a_time_that_never_ends() -> None:
    with pytest.raises(ConfigError, match=r"^actor\.reconnect_s is inf: expected a finite number$"):
        validate(ActorConfig, {"reconnect_s": float("inf")}, "actor")


def test_options_come_out_of_json_as_they_were() -> None:
    config = EnvironmentConfig(name="x", options={"kwargs": {"a": [1, 2.5, None, {"b": True}], "c": "nan"}})
    assert EnvironmentConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"text": "x" * 2**14}, "the task configuration is larger than 16384 bytes"),
        ({"number": float("nan")}, "a value that JSON does not have"),
    ],
)
def test_a_task_that_no_hello_could_carry_is_told_in_a_sentence(config: dict[str, str | float], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task_of("x", {**config})
    assert str(caught.value) == f"environment.options: {problem}"
