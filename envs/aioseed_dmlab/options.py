"""What ``environment.options`` may say for a level of DeepMind Lab, and the specs that follow from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentSpec

OPTIONS_PATH = "environment.options"
"""Where the options stand in the configuration, for messages."""

ACTION_SET = (
    (0, 0, 0, 1, 0, 0, 0),  # forward
    (0, 0, 0, -1, 0, 0, 0),  # backward
    (0, 0, -1, 0, 0, 0, 0),  # strafe left
    (0, 0, 1, 0, 0, 0, 0),  # strafe right
    (-20, 0, 0, 0, 0, 0, 0),  # look left
    (20, 0, 0, 0, 0, 0, 0),  # look right
    (-20, 0, 0, 1, 0, 0, 0),  # look left and forward
    (20, 0, 0, 1, 0, 0, 0),  # look right and forward
    (0, 0, 0, 0, 1, 0, 0),  # fire
)
"""The nine actions of IMPALA and SEED RL, in the engine's own form.

Its seven integers are: look left or right and down or up (pixels a frame), strafe, move, fire, jump, crouch.
"""


class DmlabOptions(BaseModel):
    """Say how a level is rendered and stepped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Annotated[int, Field(ge=4, le=1024, description="Columns of the picture.")] = 96
    height: Annotated[int, Field(ge=4, le=1024, description="Rows of the picture.")] = 72
    action_repeat: Annotated[int, Field(ge=1, description="Frames of the engine, at 60 a second, for one action.")] = 4
    test: Annotated[bool, Field(description="Play the held-out variants, as for the scores that are published.")] = (
        False
    )
    settings: Annotated[
        dict[str, str], Field(description="More settings of the level, by the names that its script gives them.")
    ] = {}
    dataset_path: Annotated[
        str, Field(description="Folder of the pictures that the psychlab levels show (Brady et al. 2008).")
    ] = ""
    level_cache_dir: Annotated[
        str, Field(description="Folder in which compiled maps are kept; they take seconds to compile. Empty: none.")
    ] = ""
    renderer: Annotated[Literal["software", "hardware"], Field(description="What draws the picture.")] = "software"
    max_rebuilds: Annotated[
        int, Field(ge=0, description="How often a level that raised is built anew before the actor gives up.")
    ] = 3


def spec_of(options: DmlabOptions) -> EnvironmentSpec:
    """Return what an agent observes, uint8[height, width, 3] in RGB, and the nine actions."""
    return EnvironmentSpec(ArraySpec("uint8", (options.height, options.width, 3)), discrete(len(ACTION_SET)))
