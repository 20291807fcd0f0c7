"""Whatever moves in whatever order, the books balance, and a move that an account cannot pay for changes nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.errors import AioseedError
from aioseed.telemetry.ledger import Account, Ledger, Reason

count = st.integers(0, 20)
moves = st.one_of(
    st.tuples(st.just("accept"), count, count),
    st.tuples(st.just("finish"), count),
    st.tuples(st.just("begin_training"), count),
    st.tuples(st.just("consume"), count),
    st.tuples(st.just("drop"), count, st.sampled_from(Reason), st.sampled_from(Account)),
    st.tuples(st.just("lose_after_checkpoint"), count),
)
PAYS = {"finish": "open", "begin_training": "queued", "consume": "training"}


@given(st.lists(moves, max_size=60))
def test_the_books_balance_after_every_move(script: list[tuple[str, ...]]) -> None:
    ledger = Ledger()
    for name, *arguments in script:
        before = ledger.snapshot()
        payer = str(arguments[2]) if name == "drop" else PAYS.get(name)
        if payer is not None and getattr(before, payer) < int(arguments[0]):
            with pytest.raises(AioseedError):
                getattr(ledger, name)(*arguments)
            assert ledger.snapshot() == before
            continue
        getattr(ledger, name)(*arguments)
        after = ledger.snapshot()
        assert after.imbalance == 0
        assert min(after.open, after.queued, after.training) >= 0
        assert all(after.dropped.values())


@given(st.lists(moves, max_size=40))
def test_what_a_checkpoint_held_is_dropped_as_restart_and_the_rest_goes_on(script: list[tuple[str, ...]]) -> None:
    ledger = Ledger()
    for name, *arguments in script:
        try:
            getattr(ledger, name)(*arguments)
        except AioseedError:
            continue
    saved = ledger.snapshot()
    resumed = Ledger.from_json(json.loads(json.dumps(ledger.to_json()))).snapshot()
    assert resumed.imbalance == 0
    assert resumed.held == 0
    assert resumed.dropped.get("restart", 0) == saved.dropped.get("restart", 0) + saved.held
    assert (resumed.accepted, resumed.consumed, resumed.evaluated, resumed.lost_after_checkpoint) == (
        saved.accepted,
        saved.consumed,
        saved.evaluated,
        saved.lost_after_checkpoint,
    )
