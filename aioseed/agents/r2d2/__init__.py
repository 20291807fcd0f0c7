"""R2D2: recurrent replay for discrete actions. `agent` is the plug-in object."""

from __future__ import annotations

from aioseed.agents.agent import AgentPlugin
from aioseed.agents.r2d2.agent import build
from aioseed.agents.r2d2.config import R2d2Config

__all__ = ["R2d2Config", "agent"]

agent = AgentPlugin(R2d2Config, build)
