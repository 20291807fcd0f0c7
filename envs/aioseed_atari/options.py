"""What ``environment.options`` may say for an Atari game."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from aioseed.types import EnvironmentMetric

OPTIONS_PATH = "environment.options"
"""Where the options stand in the configuration, for messages."""

METRICS = (EnvironmentMetric("score", "last"),)
"""The score of the game so far, unclipped; at the end of an episode that a lost life ended, too."""


class AtariOptions(BaseModel):
    """Say how a game is played and seen. The defaults are those of DQN as R2D2 and SEED RL use them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Annotated[
        Literal["auto", "ale", "envpool"],
        Field(description="ale (ale-py through Gymnasium), envpool, or auto: envpool where it is installed."),
    ] = "auto"
    frame_skip: Annotated[int, Field(ge=1, le=60, description="Frames for which an action is repeated.")] = 4
    noop_max: Annotated[
        int, Field(ge=0, le=1000, description="A game begins with 1 to so many frames without action; 0 for none.")
    ] = 30
    repeat_action_probability: Annotated[
        float, Field(ge=0, le=1, description="Sticky actions: chance, each frame, of the frame before's action.")
    ] = 0.0
    full_action_space: Annotated[bool, Field(description="All 18 actions instead of those that the game knows.")] = (
        False
    )
    terminal_on_life_loss: Annotated[
        bool, Field(description="A lost life ends the episode; the next one goes on with the same game.")
    ] = False
    max_frames: Annotated[int, Field(ge=1, description="Frames after which a game is cut.")] = 108_000
    size: Annotated[int, Field(ge=8, le=210, description="Height and width of the observation in pixels.")] = 84
    threads: Annotated[int, Field(ge=0, description="Of EnvPool, for one group; 0 leaves it to EnvPool.")] = 1
    max_rebuilds: Annotated[
        int, Field(ge=0, description="How often a game that raised is built anew before the actor gives up (ale).")
    ] = 3
