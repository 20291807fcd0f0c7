from __future__ import annotations

import sys
import threading

import pytest

from aioseed.errors import AioseedError, CheckpointError
from aioseed.telemetry.ledger import Account, Ledger, Reason


def test_a_transition_goes_from_account_to_account_and_is_counted_in_one():
    ledger = Ledger()
    ledger.accept(10, evaluated=3)
    ledger.finish(8)
    ledger.begin_training(6)
    ledger.consume(4)
    ledger.drop(1, Reason.LEASE_ENDED, Account.OPEN)
    ledger.drop(2, Reason.NONFINITE_UPDATE, Account.TRAINING)
    books = ledger.snapshot()
    assert books[:6] == (13, 4, 3, 1, 2, 0)
    assert books.dropped == {"lease_ended": 1, "nonfinite_update": 2}
    assert (books.held, books.imbalance) == (3, 0)


def test_an_account_never_falls_below_zero():
    ledger = Ledger()
    ledger.accept(2)
    for breach in (
        lambda: ledger.finish(3),
        lambda: ledger.begin_training(1),
        lambda: ledger.consume(1),
        lambda: ledger.drop(1, Reason.SHUTDOWN, Account.QUEUED),
        lambda: ledger.finish(-1),
        lambda: ledger.accept(-1),
        lambda: ledger.accept(0, evaluated=-1),
        lambda: ledger.lose_after_checkpoint(-1),
    ):
        with pytest.raises(AioseedError):
            breach()
    assert ledger.snapshot()[:6] == (2, 0, 0, 2, 0, 0)


def test_what_was_lost_after_the_checkpoint_stays_outside_the_formula():
    ledger = Ledger()
    ledger.lose_after_checkpoint(5)
    assert ledger.snapshot().lost_after_checkpoint == 5
    assert ledger.snapshot().imbalance == 0


def test_a_snapshot_shows_imbalance():
    assert Ledger().snapshot()._replace(accepted=7, consumed=4).imbalance == 3


def test_an_audit_compares_each_account_with_its_recount():
    ledger = Ledger()
    ledger.accept(5)
    ledger.finish(2)
    ledger.audit({Account.OPEN: 3, Account.QUEUED: 2})
    with pytest.raises(AioseedError, match="2 transitions in account queued, a recount finds 1"):
        ledger.audit({Account.OPEN: 3, Account.QUEUED: 1})
    ledger._accepted += 1
    with pytest.raises(AioseedError, match="out of balance by 1"):
        ledger.audit({Account.OPEN: 3})


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": 4},
        {"accepted": -1},
        {"accepted": 5.0},
        {"consumed": True},
        {"lost_after_checkpoint": True},
        {"lost_after_checkpoint": -1},
        {"held": None},
        {"dropped": []},
        {"dropped": {"boredom": 1}},
    ],
)
def test_a_saved_ledger_that_cannot_be_is_refused(change):
    ledger = Ledger()
    ledger.accept(5)
    with pytest.raises(CheckpointError) as caught:
        Ledger.from_json({**ledger.to_json(), **change}, path="run/3/manifest.json")
    assert caught.value.path == "run/3/manifest.json"


def test_a_saved_replay_of_more_than_the_ledger_held_is_refused():
    ledger = Ledger()
    ledger.accept(5)
    with pytest.raises(CheckpointError, match="has 6 transitions, the saved ledger holds 5"):
        Ledger.from_json(ledger.to_json(), replay=6)


def test_a_restart_that_costs_nothing_is_no_reason():
    ledger = Ledger()
    ledger.accept(5)
    ledger.finish(5)
    ledger.begin_training(5)
    ledger.remember(5)
    assert Ledger.from_json(ledger.to_json(), replay=5).snapshot().dropped == {}


def test_what_restarts_cost_adds_up():
    ledger = Ledger()
    for _ in range(2):
        ledger.accept(5)
        ledger = Ledger.from_json(ledger.to_json())
    assert ledger.snapshot().dropped == {"restart": 10}


def test_what_is_in_replay_was_trained_on_and_is_no_longer_on_the_way():
    ledger = Ledger()
    ledger.accept(10)
    ledger.finish(8)
    ledger.begin_training(6)
    ledger.remember(5)
    ledger.consume(2, Account.REPLAY)
    books = ledger.snapshot()
    assert (books.held, books.trained, books.on_the_way) == (8, 5, 5)


def test_a_saved_ledger_without_a_total_is_refused():
    form = Ledger().to_json()
    del form["evaluated"]
    with pytest.raises(CheckpointError):
        Ledger.from_json(form)


@pytest.fixture
def hasty_threads():
    """Let the interpreter switch threads as often as it can."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("hasty_threads")
def test_no_reader_ever_sees_the_books_out_of_balance():
    ledger = Ledger()
    done = threading.Event()

    def move() -> None:
        for _ in range(2000):
            ledger.accept(3, evaluated=1)
            ledger.finish(2)
            ledger.drop(1, Reason.LEASE_ENDED, Account.OPEN)
            ledger.begin_training(2)
            ledger.consume(2)
        done.set()

    mover = threading.Thread(target=move, daemon=True)
    mover.start()
    seen = {ledger.snapshot().imbalance}
    while not done.is_set():
        seen.add(ledger.snapshot().imbalance)
    mover.join(10)
    assert seen == {0}
    assert ledger.snapshot().accepted == 8000


def test_every_move_is_made_under_the_lock():
    ledger = Ledger()
    locked = []

    class Count(int):
        """A number that looks at the lock whenever it is added to a total."""

        def __radd__(self, total: int) -> int:
            locked.append(ledger._lock.locked())
            return total + int(self)

    one = Count(1)
    ledger.accept(Count(4))
    ledger.finish(Count(3))
    ledger.begin_training(Count(2))
    ledger.consume(one)
    ledger.drop(one, Reason.LEASE_ENDED, Account.OPEN)
    ledger.lose_after_checkpoint(one)
    assert locked == [True] * 6
    assert not ledger._lock.locked()
