"""Replay as training sees it: a source of unrolls that never runs dry (implements `UnrollSource`).

`take` moves finished unrolls from the bounded queue into replay, as far as samples per insert allows, and draws. Books:
a transition is in account REPLAY from its insertion on and consumed when replay forgets it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from aioseed.errors import AioseedError
from aioseed.experience.assembler import UnrollAssembler
from aioseed.experience.layout import UnrollBuffer, aligned_zeros, allocate_buffer, unroll_buffer
from aioseed.experience.replay.limiter import SamplesPerInsert
from aioseed.experience.replay.replay import Drawn, Replay
from aioseed.experience.replay.resume import restore_replay, save_replay
from aioseed.experience.replay.saving import Cuts, number_of
from aioseed.specs import Json
from aioseed.telemetry.counters import Gauge, Metrics
from aioseed.telemetry.ledger import Account, Ledger
from aioseed.telemetry.quantiles import Quantiles
from aioseed.types import Allocate, SavedReplay, Settled, UnrollBatch, UnrollColumns, UnrollLayout

Relabel: TypeAlias = Callable[[UnrollColumns, np.random.Generator], UnrollColumns]
"""Makes the columns that are learned from out of those that were drawn, which stay as they are."""


class ReplaySource:
    """Feed training from replay. Thread: the training thread alone."""

    def __init__(
        self,
        layout: UnrollLayout,
        chunks: UnrollAssembler,
        replay: Replay,
        limiter: SamplesPerInsert,
        ledger: Ledger,
        metrics: Metrics,
        *,
        sample_unrolls: int,
        sample_batches: int = 1,
        samples_first: bool = False,
        relabel: Relabel | None = None,
        zeros: Allocate = aligned_zeros,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the parts.

        Args:
            layout: Shape of the unrolls.
            chunks: Where finished unrolls come from; its batches are what is inserted together.
            replay: Where they go.
            limiter: Says when to insert and when to sample.
            ledger: Where transitions are accounted for.
            metrics: Takes size, samples per insert, priorities, age and share never drawn, under ``replay/``.
            sample_unrolls: Unrolls that one `take` hands over.
            sample_batches: Optimiser steps that share them.
            samples_first: Sample as soon as it is allowed, even if unrolls wait: what is learned from then depends on
                the order of unrolls alone, not on when they came (lockstep). Otherwise actors are held up less.
            relabel: Makes what is learned from out of what was drawn, with the randomness of the drawing.
            zeros: Makes the columns that are handed over.
            clock: Monotonic time in seconds.
        """
        self.replay = replay
        self.limiter = limiter
        self._chunks = chunks
        self._ledger = ledger
        self._sample_unrolls = sample_unrolls
        self._sample_batches = sample_batches
        self._samples_first = samples_first
        self._relabel = relabel
        self._clock = clock
        self._buffer: UnrollBuffer | None = allocate_buffer(layout, sample_unrolls, zeros)
        self._lent: tuple[UnrollBuffer, UnrollColumns] | None = None  # and the columns that were handed over
        self._new_transitions = 0
        self._cuts = Cuts(replay.blocks, replay.pins)
        self._gauges = _Gauges(metrics)

    def take(self, timeout_s: float) -> UnrollBatch | None:
        """Return unrolls drawn from replay, or None after `timeout_s` in which nothing could be drawn.

        Raises:
            AioseedError: The batch before was not given back.
        """
        if not self._samples_first:
            self._insert_waiting()
        until_s = self._clock() + timeout_s
        while not self.limiter.may_sample():
            chunk = self._chunks.take(max(until_s - self._clock(), 0.0))
            if chunk is None:
                return None
            self._insert(chunk)
        return self._draw()

    def settle(self, batch: UnrollBatch, finite: np.ndarray | None, priorities: np.ndarray | None) -> Settled:
        """Give the drawn unrolls their new priorities; count what was inserted since the last call as trained on.

        Unrolls of a skipped step get the lowest priority: one that no step survives would otherwise be drawn for ever.
        """
        if finite is None:
            return Settled(0, 0)
        if batch.entries is not None:
            learned = np.repeat(finite, batch.count // len(finite))
            # First, so that an unroll that another step of this batch did survive keeps what that step said.
            self.replay.demote(batch.entries[~learned])
            if priorities is not None:
                self.replay.update(batch.entries[learned], priorities[learned])
        new, self._new_transitions = self._new_transitions, 0
        return Settled(new, 0)

    def give_back(self, batch: UnrollBatch) -> None:
        """Return the columns for reuse.

        Raises:
            AioseedError: The batch is not lent.
        """
        if self._lent is None or self._lent[1] is not batch.columns:
            raise AioseedError("a batch was given back that is not lent")
        self._buffer, self._lent = self._lent[0], None

    def save(self) -> SavedReplay:
        """Return what a checkpoint keeps: to be called between two updates."""
        counts: dict[str, Json] = {
            "inserted": self.limiter.inserted,
            "sampled": self.limiter.sampled,
            "untrained": self._new_transitions,
        }
        return save_replay(self.replay, self._cuts, counts)

    def restore(
        self,
        state: Mapping[str, Json],
        arrays: Mapping[str, np.ndarray],
        read: Callable[[str], Mapping[str, np.ndarray]],
        path: str = "",
    ) -> None:
        """Go on with what `save` returned; before the first `take`.

        Args:
            state: `SavedReplay.state`.
            arrays: `SavedReplay.arrays`.
            read: Returns the arrays of a segment by its name.
            path: Of the checkpoint, for messages.

        Raises:
            CheckpointError: It is of another form, or of another capacity.
        """
        restore_replay(self.replay, self._cuts, state, arrays, read, path)
        self.limiter.resume(number_of(state, "inserted", path), number_of(state, "sampled", path))
        self._new_transitions = number_of(state, "untrained", path)

    @property
    def ready(self) -> int:
        """Return 1 if unrolls can be drawn now or after inserting what waits, else 0."""
        return int(self.limiter.may_sample() or self._chunks.ready > 0)

    def audit(self) -> None:
        """Recount what replay holds and compare with the ledger.

        Raises:
            AioseedError: They differ.
        """
        self._ledger.audit({Account.REPLAY: self.replay.transitions()})

    def _insert_waiting(self) -> None:
        for _ in range(self._chunks.ready):
            if not self.limiter.may_insert():
                return
            chunk = self._chunks.take(0.0)
            if chunk is None:
                return
            self._insert(chunk)

    def _insert(self, chunk: UnrollBatch) -> None:
        transitions = int(chunk.identity.transitions[: chunk.count].sum())
        gone = self.replay.insert(unroll_buffer(chunk), chunk.priorities)
        self.limiter.insert()
        self._chunks.give_back(chunk)
        self._ledger.remember(transitions)
        self._ledger.consume(gone, Account.REPLAY)
        self._new_transitions += transitions

    def _draw(self) -> UnrollBatch:
        if self._buffer is None:
            raise AioseedError("a batch was asked for while another one is lent")
        buffer, self._buffer = self._buffer, None
        drawn = self.replay.draw(self._sample_unrolls, self._sample_batches)
        self.replay.blocks.copy_out(drawn.numbers, buffer)
        buffer.batch.columns.importance[...] = drawn.importance
        self.limiter.sample()
        columns = buffer.batch.columns
        if self._relabel is not None:
            columns = self._relabel(columns, self.replay.generator)
        self._lent = buffer, columns
        self._gauges.observe(self.replay, self.limiter, drawn)
        return UnrollBatch(columns, buffer.batch.identity, buffer.batch.count, None, drawn.numbers)


class _Gauges:
    """Say what is worth watching."""

    def __init__(self, metrics: Metrics) -> None:
        self._size: Gauge = metrics.gauge("replay/size_unrolls")
        self._ratio: Gauge = metrics.gauge("replay/samples_per_insert")
        self._unseen: Gauge = metrics.gauge("replay/never_sampled_share")
        self._priority: Quantiles = metrics.quantiles("replay/sampled_priority", low=1e-6, high=1e6)
        self._age: Quantiles = metrics.quantiles("replay/sampled_age_unrolls", low=0.5, high=1e9)

    def observe(self, replay: Replay, limiter: SamplesPerInsert, drawn: Drawn) -> None:
        self._size.set(len(replay))
        self._ratio.set(limiter.observed)
        self._unseen.set(replay.unseen_share)
        self._priority.observe_many(replay.priorities_of(drawn))
        self._age.observe_many(replay.blocks.next - drawn.numbers)
