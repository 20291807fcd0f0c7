"""The ``environment`` and ``actor`` sections of the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

Compression: TypeAlias = Literal["auto", "deflate", "none"]


class EnvironmentConfig(BaseModel):
    """Name an environment and say what it is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    plugin: Annotated[str, Field(min_length=1, description="Name in the entry-point group aioseed.envs.")] = "gymnasium"
    name: Annotated[str, Field(min_length=1, max_length=256, description="Name of the environment in its plugin.")]
    options: Annotated[dict[str, JsonValue], Field(description="What the plugin makes it with.")] = {}

    @field_validator("options")
    @classmethod
    def _is_json(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        # JSON, as which options go into the run directory, to actors and to learners, would make null of it.
        for path, number in _nonfinite(options, "options"):
            raise ValueError(f"{path} is {number}: expected a finite number")
        return options


def _nonfinite(value: JsonValue, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _nonfinite(inner, f"{path}.{key}")


class ActorConfig(BaseModel):
    """Size and bound the actor processes of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    processes: Annotated[int, Field(ge=1, le=4096, description="Local actor processes of `aioseed train`.")] = 2
    groups: Annotated[int, Field(ge=1, le=256, description="Groups of a process; they step in turns.")] = 2
    envs_per_group: Annotated[int, Field(ge=1, le=2**16, description="Environments that share a message.")] = 32
    step_deadline_s: Annotated[
        float, Field(gt=0, le=86_400, description="Seconds after which the step of a group counts as hung.")
    ] = 60.0
    wait_s: Annotated[float, Field(ge=0, le=86_400, description="Seconds to wait for the first welcome.")] = 10.0
    reconnect_s: Annotated[
        float, Field(ge=0, description="Seconds to keep dialling a learner that was lost after a welcome.")
    ] = 600.0
    compression: Annotated[
        Compression,
        Field(
            description="Whether observations are deflated on the way; auto: where the learner is another machine,"
            " for as long as they shrink to half."
        ),
    ] = "auto"
    nice: Annotated[
        int | None, Field(ge=-20, le=19, description="Niceness of an actor process, where the system has one.")
    ] = None
    switch_interval_s: Annotated[
        float,
        Field(ge=1e-6, le=1.0, description="Longest time that a stepping thread keeps Python from the event loop."),
    ] = 0.0005
