"""PPO: several passes over what was just played, with a bounded policy loss. `agent` is the plug-in object."""

from __future__ import annotations

from aioseed.agents.agent import AgentPlugin
from aioseed.agents.ppo.agent import build
from aioseed.agents.ppo.config import PpoConfig

__all__ = ["PpoConfig", "agent"]

agent = AgentPlugin(PpoConfig, build)
