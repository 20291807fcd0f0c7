"""What inference hands its rows to in a run: returns first, then unrolls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aioseed.experience.assembler import UnrollAssembler
from aioseed.telemetry.returns import EpisodeTracker
from aioseed.types import ActColumns, BeginsState, Episodes, Loan, StepColumns


class RunSink:
    """Pass rows to the episode accounting and to the assembler (implements `UnrollSink`).

    Thread: the inference thread alone.

    Args:
        finished: Called with the episodes that ended in a batch, if any.
    """

    def __init__(
        self, episodes: EpisodeTracker, assembler: UnrollAssembler, finished: Callable[[Episodes], None]
    ) -> None:
        self._episodes = episodes
        self._assembler = assembler
        self._finished = finished

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan) -> None:
        """Account for episodes, then append to the unrolls; blocks while training is behind."""
        ended = self._episodes.append(steps, count)
        if ended.slot.size:
            self._finished(ended)
        self._assembler.append(steps, acts, count, begins_state, loan)

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        """Note the role of newly leased slots."""
        self._episodes.begin(slots, evaluation=evaluation)
        self._assembler.begin(slots, evaluation=evaluation)

    def drop(self, slots: np.ndarray, reason: str, arrived: int = 0) -> None:
        """Drop the open unrolls of `slots`, and `arrived` transitions that are in none."""
        self._assembler.drop(slots, reason, arrived)

    def has_room(self, slots: np.ndarray) -> bool:
        """Say whether the assembler has room for what one row for each of `slots` makes full."""
        return self._assembler.has_room(slots)

    @property
    def batches_finished(self) -> int:
        """Return how many training batches were filled so far."""
        return self._assembler.batches_finished
