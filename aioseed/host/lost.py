"""Steps that a crash lost: what actors were answered after the checkpoint from which the run goes on."""

from __future__ import annotations

from aioseed.telemetry.ledger import Ledger
from aioseed.wire.messages import Hello

MAX_ACTORS = 100_000
"""Actors whose totals are added up; more than that are made up."""


class LostSteps:
    """Add up what actors that come back say they were answered in this run (Thread: the event loop alone).

    The ledger of the checkpoint knows what was accepted until it was written. What the actors have beyond that was
    accepted later and is gone. An actor that never comes back tells nothing, so the figure is a lower bound.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._accepted_before = ledger.snapshot().accepted
        self._answered = 0
        self._seen: set[str] = set()

    def greeted(self, hello: Hello) -> None:
        """Take an actor's first HELLO into account; what it does from then on is in the ledger."""
        if hello.actor_id in self._seen or len(self._seen) >= MAX_ACTORS:
            return
        self._seen.add(hello.actor_id)
        self._answered += hello.acknowledged_rows
        # An earlier crash lost some of them already, and the ledger remembers how many.
        missing = self._answered - self._accepted_before - self._ledger.snapshot().lost_after_checkpoint
        if missing > 0:
            self._ledger.lose_after_checkpoint(missing)
