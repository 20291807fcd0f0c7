"""SAC: soft actor-critic, the off-policy agent for Box actions. `agent` is the plug-in object."""

from __future__ import annotations

from aioseed.agents.agent import AgentPlugin
from aioseed.agents.sac.agent import build
from aioseed.agents.sac.config import SacConfig

__all__ = ["SacConfig", "agent"]

agent = AgentPlugin(SacConfig, build)
