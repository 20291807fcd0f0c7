from __future__ import annotations

from itertools import islice

import pytest

from aioseed.chaos.faults import SECONDS, Kind, possible_kinds, repeated, schedule

ACTORS = 4


def test_the_same_seed_gives_the_same_faults_and_another_one_others():
    first, again, other = (list(islice(schedule(seed, ACTORS, list(Kind)), 60)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_every_round_has_every_kind_once():
    kinds = [fault.kind for fault in islice(schedule(0, ACTORS, list(Kind)), 10 * len(Kind))]
    for begin in range(0, len(kinds), len(Kind)):
        assert set(kinds[begin : begin + len(Kind)]) == set(Kind)


def test_somebody_is_always_left_alone_where_there_are_two():
    for fault in islice(schedule(3, ACTORS, list(Kind)), 200):
        has_victims = fault.kind in (Kind.ACTOR_KILL, Kind.ACTOR_FREEZE)
        assert (0 < len(fault.victims) < ACTORS) if has_victims else fault.victims == ()
        assert len(set(fault.victims)) == len(fault.victims) and all(index < ACTORS for index in fault.victims)
        low, high = SECONDS.get(fault.kind, (0.0, 0.0))
        assert low <= fault.seconds <= high


@pytest.mark.parametrize("kind", [Kind.ACTOR_KILL, Kind.LEARNER_KILL])
def test_repeated_faults_add_up_to_the_number_that_was_asked_for(kind):
    faults = list(repeated(1, ACTORS, kind, 50))
    assert {fault.kind for fault in faults} == {kind}
    assert sum(len(fault.victims) or 1 for fault in faults) == 50


def test_a_full_disk_is_left_out_where_it_cannot_be_pretended(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert set(possible_kinds()) == set(Kind) - {Kind.DISK_FULL}
    monkeypatch.setattr("sys.platform", "linux")
    assert set(possible_kinds()) == set(Kind)
