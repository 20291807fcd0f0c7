"""What ``environment.options`` may say for a Gymnasium environment."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from aioseed.specs import wire_dtype

OPTIONS_PATH = "environment.options"
"""Where the options stand in the configuration, for messages."""


class WrapperOptions(BaseModel):
    """Name a wrapper and say what it is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[
        str, Field(min_length=1, description="One of ours, a class of gymnasium.wrappers, or package.module:name.")
    ]
    kwargs: Annotated[dict[str, JsonValue], Field(description="Its arguments after the environment.")] = {}


class GymnasiumOptions(BaseModel):
    """Say how Gymnasium environments are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vectorized: Annotated[
        bool, Field(description="Use the environment's own vector implementation; wrappers are then vector wrappers.")
    ] = False
    kwargs: Annotated[dict[str, JsonValue], Field(description="Arguments of the environment.")] = {}
    wrappers: Annotated[tuple[WrapperOptions, ...], Field(description="Put around it, the innermost first.")] = ()
    max_episode_steps: Annotated[int, Field(ge=1, description="Truncate after so many steps.")] | None = None
    max_rebuilds: Annotated[
        int, Field(ge=0, description="How often an environment that raised is built anew before the actor gives up.")
    ] = 3
    keep_float64: Annotated[
        bool, Field(description="Send float64 observations as they are; the learner needs JAX_ENABLE_X64=1.")
    ] = False
    keep_int64: Annotated[
        bool, Field(description="Send int64 and uint64 observations as they are; the learner needs JAX_ENABLE_X64=1.")
    ] = False

    def dtype_sent(self, dtype: np.dtype[np.generic]) -> str:
        """Return the dtype in which arrays of `dtype` travel."""
        kept = (self.keep_float64 and dtype == np.float64) or (self.keep_int64 and dtype in (np.int64, np.uint64))
        return dtype.name if kept else wire_dtype(dtype)
