"""The task configuration by which actors and learner see that they mean the same environment."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from aioseed.errors import ConfigError
from aioseed.specs import Json
from aioseed.wire.messages import Task


def task_of(name: str, config: Mapping[str, Json]) -> Task:
    """Return what a HELLO says of the environment `name`, whose plugin makes `config` of its options.

    Raises:
        ConfigError: It does not fit into a HELLO.
    """
    try:
        return Task.model_validate({"name": name, "config": config})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"environment.options: {problem}", path="environment.options") from error
