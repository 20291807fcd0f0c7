"""The simulation itself: equal seeds do the same, many seeds find nothing, and what is broken on purpose is found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from aioseed.chaos import actor
from aioseed.chaos.learner import Laboratory
from aioseed.chaos.simulation import SimulationFailed, simulate
from aioseed.experience import lent, store
from aioseed.serving.leases import Leases
from aioseed.serving.slots import Rows, SlotTable
from aioseed.telemetry.ledger import Ledger
from aioseed.testing.counting import COUNTING_SPEC

pytestmark = pytest.mark.timeout(300)

SEEDS = [
    *range(20),
    421,  # who had only joined anew was taken for stepping, had fallen silent again, and never heard the end of the run
]


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    yield Laboratory()


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_holds_whatever_breaks(laboratory: Laboratory, seed: int) -> None:
    outcome = simulate(laboratory, seed)
    assert sum(outcome.faults.values()) >= 20
    assert outcome.unrolls > 20 and outcome.rows > 100


@pytest.mark.parametrize(
    "seed",
    [10771],  # a lease that was revoked before its row came back from a slow step was never given again
)
def test_everything_holds_where_twice_as_much_breaks(laboratory: Laboratory, seed: int) -> None:
    assert sum(simulate(laboratory, seed, faults=40).faults.values()) >= 40


@pytest.mark.parametrize("lent_times", [0.3, 2])
@pytest.mark.parametrize("seed", range(40, 44))
def test_everything_holds_where_observations_stay_in_their_batches(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, seed: int, lent_times: float
) -> None:
    monkeypatch.setattr(store, "LENT_ROW_BYTES", COUNTING_SPEC.observation.row_bytes)
    monkeypatch.setattr(lent, "LENT_TIMES", lent_times)
    assert simulate(laboratory, seed).unrolls > 20


def test_a_seed_does_the_same_again_and_another_does_not(laboratory: Laboratory) -> None:
    first, again, other = (simulate(laboratory, seed, faults=8) for seed in (3, 3, 4))
    assert first == again
    assert first.trace != other.trace


def test_the_quick_program_does_what_the_compiled_one_does(laboratory: Laboratory) -> None:
    assert simulate(laboratory, 5, faults=4) == simulate(Laboratory(compiled=True), 5, faults=4)


def test_a_row_that_is_applied_twice_is_found(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    sort = SlotTable.sort

    def applies_repeats(self: SlotTable, owner: int, rows: object) -> Rows:
        found = sort(self, owner, rows)  # type: ignore[arg-type]
        return found._replace(apply=np.union1d(found.apply, found.repeat), repeat=found.repeat[:0])

    monkeypatch.setattr(SlotTable, "sort", applies_repeats)
    with pytest.raises(SimulationFailed, match=r"seed \d+: .*must come"):
        for seed in range(10):
            simulate(laboratory, seed)


def test_an_episode_that_goes_on_with_another_state_is_found(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(Laboratory):
        def engine(self, *parts):  # type: ignore[no-untyped-def]
            engine = super().engine(*parts)
            program = engine._compiled[24]
            calls = iter(range(10**9))

            def forgets(params, key, state, rows):  # type: ignore[no-untyped-def]
                if next(calls) == 50:
                    state = [np.zeros_like(np.array(state[0]))]
                return program(params, key, state, rows)

            engine.use({24: forgets})
            return engine

    with pytest.raises(SimulationFailed, match="the unroll of slot"):
        simulate(Forgetful(), 0)


def test_a_ledger_that_forgets_is_found(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "drop", lambda self, count, reason, account: self._withdraw(account, count))
    with pytest.raises(SimulationFailed, match="out of balance"):
        for seed in range(5):
            simulate(laboratory, seed)


def test_slots_that_are_never_given_back_are_found(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leases, "end", lambda self, session, now_s: None)
    with pytest.raises(SimulationFailed):
        for seed in range(10):
            simulate(laboratory, seed)


def test_an_error_that_nobody_foresaw_is_told_with_its_seed(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumbles(*_: object, **__: object) -> None:
        raise ZeroDivisionError("an actor stumbled")

    monkeypatch.setattr(actor, "run_actor", stumbles)
    with pytest.raises(SimulationFailed, match="seed 0: ZeroDivisionError: an actor stumbled"):
        simulate(laboratory, 0)
