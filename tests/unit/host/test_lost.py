from __future__ import annotations

import pytest

from aioseed.host.lost import LostSteps
from aioseed.telemetry.ledger import Ledger
from aioseed.wire.messages import Hello


def hello(actor_id: str, acknowledged_rows: int) -> Hello:
    words = {"library": "test", "environments": 1, "observation": {}, "action": {}}
    return Hello(actor_id=actor_id, acknowledged_rows=acknowledged_rows, **words)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    made.accept(1000)
    return made


def test_what_actors_were_answered_beyond_the_checkpoint_is_lost(ledger: Ledger) -> None:
    lost = LostSteps(ledger)
    lost.greeted(hello("a", 700))
    assert ledger.snapshot().lost_after_checkpoint == 0
    lost.greeted(hello("b", 500))
    lost.greeted(hello("c", 30))
    assert ledger.snapshot().lost_after_checkpoint == 230
    assert ledger.snapshot().imbalance == 0


def test_an_actor_that_joins_again_is_not_counted_twice_and_new_steps_are_not_lost(ledger: Ledger) -> None:
    lost = LostSteps(ledger)
    lost.greeted(hello("a", 1100))
    ledger.accept(500)
    lost.greeted(hello("a", 1600))
    assert ledger.snapshot().lost_after_checkpoint == 100


def test_steps_that_an_earlier_crash_lost_are_not_lost_again(ledger: Ledger) -> None:
    ledger.lose_after_checkpoint(200)
    lost = LostSteps(ledger)
    lost.greeted(hello("a", 1150))
    assert ledger.snapshot().lost_after_checkpoint == 200
    lost.greeted(hello("b", 100))
    assert ledger.snapshot().lost_after_checkpoint == 250
