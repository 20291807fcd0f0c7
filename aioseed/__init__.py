"""Train deep RL agents with environments in one place and accelerators in another."""

from __future__ import annotations

__version__ = "0.1.0"
