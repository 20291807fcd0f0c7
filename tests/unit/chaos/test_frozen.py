"""Actors that freeze cost the others one deadline at most, once; a learner that goes on waiting for them is found."""

from __future__ import annotations

import math

import pytest

from aioseed.chaos.frozen import DEADLINE_S, USUAL_S, freeze
from aioseed.chaos.invariants import Violation
from aioseed.chaos.learner import Laboratory
from aioseed.serving import intake
from aioseed.serving.rule import close_now
from aioseed.serving.slots import SlotTable
from aioseed.testing.seeded_loop import run_seeded

pytestmark = pytest.mark.timeout(120)

SEEDS = range(3)


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    return Laboratory()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_third_that_freezes_costs_the_others_nothing(laboratory: Laboratory, seed: int) -> None:
    """Half of those that answered the last two closes are enough for a batch."""
    waited, _ = run_seeded(seed, freeze(laboratory, seed, 1))
    assert waited.late == 0 and waited.answers > 50


@pytest.mark.parametrize("seed", SEEDS)
def test_two_thirds_that_freeze_cost_an_idle_learner_nothing(laboratory: Laboratory, seed: int) -> None:
    """The others are served once the device has been idle for as long as a batch takes."""
    waited, _ = run_seeded(seed, freeze(laboratory, seed, 2))
    assert waited.late == 0 and waited.answers > 50


@pytest.mark.parametrize("seed", SEEDS)
def test_two_thirds_that_freeze_cost_one_deadline(
    laboratory: Laboratory, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is for a learner that serves more slowly than its deadline."""
    _without_patience(monkeypatch)
    waited, _ = run_seeded(seed, freeze(laboratory, seed, 2))
    assert waited.late > 0 and DEADLINE_S < waited.longest_s <= DEADLINE_S + USUAL_S


def test_a_learner_that_waits_for_them_again_and_again_is_found(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlotTable, "mark_late", lambda self: None)
    _without_patience(monkeypatch, recent=48)
    with pytest.raises(Violation, match="answers were late for 2 incidents"):
        run_seeded(0, freeze(laboratory, 0, 2))


def _without_patience(monkeypatch: pytest.MonkeyPatch, **changes: int) -> None:
    waits = lambda state, limits: close_now(state._replace(service_s=math.inf, **changes), limits)  # noqa: E731
    monkeypatch.setattr(intake, "close_now", waits)
    monkeypatch.setattr(intake, "patience_s", lambda service_s: math.inf)
