"""V-trace (IMPALA): on-policy but for the lag, or from a small replay. `agent` is the plug-in object."""

from __future__ import annotations

from aioseed.agents.agent import AgentPlugin
from aioseed.agents.vtrace.agent import build
from aioseed.agents.vtrace.config import VtraceConfig

__all__ = ["VtraceConfig", "agent"]

agent = AgentPlugin(VtraceConfig, build)
