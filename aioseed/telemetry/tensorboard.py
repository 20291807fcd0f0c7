"""The TensorBoard sink; the only module that imports tensorboardX, and only when a sink is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from aioseed.errors import PluginError


class TensorBoardSink:
    """Write scalars as TensorBoard events into a directory."""

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise PluginError(
                'TensorBoard events need tensorboardX: pip install "aioseed[learner]"',
                name="tensorboard",
                extra="learner",
            ) from error
        self._writer = SummaryWriter(str(directory))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record each finite value under its name as of environment step `step`; others are left out."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file. Idempotent."""
        self._writer.close()
