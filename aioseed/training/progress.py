"""What training knows about itself: counters that a checkpoint carries, time spent, and when the next save is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aioseed.errors import CheckpointError
from aioseed.specs import Json
from aioseed.training.config import CheckpointConfig


@dataclass(slots=True)
class Progress:
    """Count what was done since the run began, resumed runs included."""

    version: int = 0
    """Optimiser steps made, skipped ones included: the version of the parameters that they left."""
    skipped_updates: int = 0
    trained_transitions: int = 0
    taken_transitions: int = 0
    """Trained ones and those of skipped updates."""
    nonfinite_in_a_row: int = 0

    def to_json(self) -> dict[str, Json]:
        """Return the form that a checkpoint carries."""
        return {name: int(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, form: Mapping[str, Json], *, path: str = "") -> Progress:
        """Return the counters that `to_json` gave.

        Raises:
            CheckpointError: The form is another one.
        """
        values = {name: form.get(name) for name in cls.__slots__}
        counts = {name: value for name, value in values.items() if type(value) is int and value >= 0}
        if len(counts) < len(values):
            raise CheckpointError("the saved counters of training cannot be read", path=path)
        return cls(**counts)


@dataclass(slots=True)
class TimeSpent:
    """Hold where the training thread's time went, in seconds."""

    busy_s: float = 0.0
    """In updates."""
    longest_call_s: float = 0.0
    """In one call of the update."""
    idle_ready_s: float = 0.0
    """Not in updates although a batch was ready: book-keeping, publication, checkpoint copies."""
    waiting_s: float = 0.0
    """Without a batch."""


class TrainingReport(NamedTuple):
    """Report one call of the update, in plain numbers."""

    version: int  # of the policy that this call published
    trained_transitions: int  # so far
    skipped_updates: int  # so far
    metrics: dict[str, float]  # means over the finite steps of this call; empty where none was finite
    policy_lag_p50: float  # optimiser steps between the policy that acted and the update, over this call's rows
    policy_lag_max: float
    busy_s: float  # so far in this process, as in TimeSpent
    idle_ready_s: float
    waiting_s: float


class TrainingSummary(NamedTuple):
    """Say what a finished loop did."""

    version: int
    updates: int  # optimiser steps applied
    skipped_updates: int
    trained_transitions: int
    busy_s: float
    idle_ready_s: float
    waiting_s: float


class CheckpointCadence:
    """Decide when the next checkpoint is due. Reads no clock; time may be any that does not run backwards."""

    def __init__(self, config: CheckpointConfig, now_s: float, version: int) -> None:
        self._every_s = config.every_s
        self._every_updates = config.every_updates
        self._last_s = now_s
        self._last_version = version

    def due(self, now_s: float, version: int) -> bool:
        """Return True when a checkpoint is due; it then counts as taken."""
        by_time = self._every_s is not None and now_s - self._last_s >= self._every_s
        by_updates = self._every_updates is not None and version - self._last_version >= self._every_updates
        if by_time or by_updates:
            self._last_s, self._last_version = now_s, version
        return by_time or by_updates
