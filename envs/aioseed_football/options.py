"""What ``environment.options`` may say for a football match, and the specs that follow from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentSpec

OPTIONS_PATH = "environment.options"
"""Where the options stand in the configuration, for messages."""

ACTIONS = 19
"""Actions of gfootball's default set: idle, eight directions, passes, shot, sprint, releases, sliding, dribble."""
MINIMAP_LAYERS = 4
"""Left team, right team, ball, active player."""
MINIMAP_SIZES = {"default": (72, 96), "medium": (90, 120), "large": (108, 144)}
"""Rows and columns of the super minimap in the paper's three sizes."""
VECTOR_SIZE = 115


class FootballOptions(BaseModel):
    """Say what an agent sees of a match and what it is rewarded for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    observation: Annotated[
        Literal["smm", "simple115"],
        Field(description="smm: the super minimap, its layers packed as bits; simple115: 115 numbers (simple115v2)."),
    ] = "smm"
    smm_size: Annotated[Literal["default", "medium", "large"], Field(description="72x96, 90x120 or 108x144 cells.")] = (
        "default"
    )
    reward: Annotated[
        Literal["scoring", "checkpoints"],
        Field(description="scoring: goals; checkpoints: goals, and 0.1 for each tenth of the way to the goal."),
    ] = "scoring"
    max_rebuilds: Annotated[
        int, Field(ge=0, description="How often a match that raised is built anew before the actor gives up.")
    ] = 3


def spec_of(options: FootballOptions) -> EnvironmentSpec:
    """Return what a match observes and takes.

    The minimap is uint8[rows, columns, 1]: bit 7 is the left team, then right team, ball and active player
    (``numpy.packbits`` along the last axis, big bit order).
    """
    if options.observation == "simple115":
        return EnvironmentSpec(ArraySpec("float32", (VECTOR_SIZE,)), discrete(ACTIONS))
    return EnvironmentSpec(ArraySpec("uint8", (*MINIMAP_SIZES[options.smm_size], 1)), discrete(ACTIONS))
