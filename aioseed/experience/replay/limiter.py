"""Samples per insert: how much is learned for each thing that is experienced, held from both sides.

With s the samples per insert, ``debt = s * inserted - sampled`` is what training still owes. Inserting raises it,
sampling lowers it, and both must keep it within `slack` of where sampling began: so a slow learner holds the actors up,
and slow actors hold the learner up (SEED RL's replay_ratio; Reverb's rate limiter, Cassirer et al. 2021,
arXiv:2102.04736, section 3.4).
"""

from __future__ import annotations

import math

from aioseed.errors import ConfigError

_SCALE = 1_000_000


class SamplesPerInsert:
    """Say who may go on. Units are unrolls. Thread: one."""

    def __init__(
        self,
        ratio: float | None,
        *,
        min_unrolls: int,
        insert_unrolls: int,
        sample_unrolls: int,
        slack: float | None = None,
    ) -> None:
        """Begin with nothing inserted.

        Args:
            ratio: Unrolls sampled for each one inserted; None lets both sides run freely.
            min_unrolls: Nothing is sampled before so many were inserted.
            insert_unrolls: Unrolls that are inserted together.
            sample_unrolls: Unrolls that are sampled together.
            slack: How far the debt may be from where sampling began; None: as little as cannot deadlock.

        Raises:
            ConfigError: With so little slack both sides could wait for each other for ever.
        """
        # In millionths, so that debts are exact however long a run is: rounding could make both sides wait.
        self._ratio = None if ratio is None else max(round(ratio * _SCALE), 1)
        self._min = min_unrolls
        self._insert, self._sample = insert_unrolls, sample_unrolls
        # Inserting is refused above high - ratio * insert, sampling below low + sample: where the second lies above the
        # first, a debt between them is stuck.
        needed = ((self._ratio or 0) / _SCALE * insert_unrolls + sample_unrolls) / 2
        self._slack = math.ceil((needed if slack is None else slack) * _SCALE)
        if slack is not None and ratio is not None and slack < needed:
            raise ConfigError(
                f"replay.slack_unrolls is {slack:g}, but with {insert_unrolls} unrolls inserted and {sample_unrolls} "
                f"sampled at a time {needed:g} is the least with which neither side waits for ever",
                path="replay.slack_unrolls",
                value=f"{slack:g}",
            )
        self.inserted = 0  # unrolls, as `sampled`
        self.sampled = 0

    @property
    def observed(self) -> float:
        """Return the samples per insert so far, since sampling became possible."""
        counted = self.inserted - self._min
        return self.sampled / counted if counted > 0 else 0.0

    def resume(self, inserted: int, sampled: int) -> None:
        """Go on from saved counts.

        Under another ratio or another minimum the debt would be that of the whole run: then so many count as sampled
        that it is within the slack, and neither side has to catch up.
        """
        self.inserted, self.sampled = inserted, sampled
        if self._ratio is not None:
            due = self._ratio * max(inserted - self._min, 0)
            self.sampled = min(max(sampled, -((self._slack - due) // _SCALE)), (due + self._slack) // _SCALE)

    def may_insert(self) -> bool:
        """Return True if the next unrolls may be inserted."""
        if self._ratio is None or self.inserted < self._min:
            return True
        return self._debt(self._ratio) + self._ratio * self._insert <= self._slack

    def may_sample(self) -> bool:
        """Return True if the next unrolls may be sampled."""
        if self.inserted < self._min:
            return False
        return self._ratio is None or self._debt(self._ratio) - self._sample * _SCALE >= -self._slack

    def insert(self) -> None:
        """Count one insertion."""
        self.inserted += self._insert

    def sample(self) -> None:
        """Count one sampling."""
        self.sampled += self._sample

    def _debt(self, ratio: int) -> int:
        return ratio * (self.inserted - self._min) - self.sampled * _SCALE
