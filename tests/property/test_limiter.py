"""Samples per insert: held from both sides, and never so that both sides wait."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioseed.errors import ConfigError
from aioseed.experience.replay.limiter import SamplesPerInsert

ratios = st.sampled_from([0.1, 1 / 3, 0.75, 1.0, 1.5, 4.0, 8.3])
numbers = st.integers(1, 70)


@given(ratio=ratios, insert=numbers, sample=numbers, minimum=numbers, extra=st.sampled_from([0.0, 0.5, 40.0]),
       choices=st.lists(st.booleans(), min_size=300, max_size=300))  # fmt: skip
def test_neither_side_waits_for_ever_and_the_ratio_holds(ratio, insert, sample, minimum, extra, choices) -> None:
    slack = (ratio * insert + sample) / 2 + 1e-3 + extra
    limiter = SamplesPerInsert(
        ratio, min_unrolls=minimum, insert_unrolls=insert, sample_unrolls=sample, slack=slack if extra else None
    )
    for prefers_insert in choices:
        may_insert, may_sample = limiter.may_insert(), limiter.may_sample()
        assert may_insert or may_sample
        if limiter.inserted < minimum:
            assert not may_sample
        if may_insert and (prefers_insert or not may_sample):
            limiter.insert()
        else:
            limiter.sample()
        if limiter.inserted >= minimum + insert:
            owed = ratio * (limiter.inserted - minimum) - limiter.sampled
            assert abs(owed) <= slack + ratio * insert + 1e-3


@given(ratio=ratios, insert=numbers, sample=numbers, choices=st.lists(st.booleans(), min_size=100, max_size=100))
def test_debts_are_exact_however_long_a_run_is(ratio, insert, sample, choices) -> None:
    limiter = SamplesPerInsert(ratio, min_unrolls=1, insert_unrolls=insert, sample_unrolls=sample)
    limiter.resume(10**15, int(ratio * 10**15))
    for prefers_insert in choices:
        may_insert, may_sample = limiter.may_insert(), limiter.may_sample()
        assert may_insert or may_sample
        if may_insert and (prefers_insert or not may_sample):
            limiter.insert()
        else:
            limiter.sample()
    assert isinstance(limiter.sampled, int), "a checkpoint holds it"


@example(before=None, after=0.1, inserted=60, minimum_before=10, minimum=70)
@given(before=st.none() | ratios, after=ratios, inserted=st.integers(0, 100_000),
       minimum_before=numbers, minimum=numbers)  # fmt: skip
def test_a_run_that_goes_on_under_another_ratio_or_minimum_has_nothing_to_catch_up(
    before, after, inserted, minimum_before, minimum
) -> None:
    sampled = int((before or 17.0) * max(inserted - minimum_before, 0))
    limiter = SamplesPerInsert(after, min_unrolls=minimum, insert_unrolls=16, sample_unrolls=64)
    limiter.resume(inserted, sampled)
    assert limiter.sampled == sampled or (before, minimum_before) != (after, minimum), "what is in order is kept"
    turns = 0
    while not (limiter.inserted >= minimum and limiter.may_sample()):
        limiter.insert()
        turns += 1
    assert turns <= minimum / 16 + 2 * limiter._slack / after / 16e6 + 2
    turns = 0
    while not limiter.may_insert():
        limiter.sample()
        turns += 1
    assert turns <= 2 * limiter._slack / 64e6 + 2


@pytest.mark.parametrize(
    ("ratio", "inserted", "sampled", "expected"),
    [(1.0, 1, 0, 0), (1.0, 1, 90, 3), (1.0, 5, 90, 3), (1.0, 20, 0, 12), (1.0, 20, 16, 16), (None, 20, 90, 90)],
)
def test_saved_counts_are_kept_but_for_what_is_beyond_the_slack(ratio, inserted, sampled, expected) -> None:
    limiter = SamplesPerInsert(ratio, min_unrolls=5, insert_unrolls=2, sample_unrolls=4)
    limiter.resume(inserted, sampled)
    assert (limiter.inserted, limiter.sampled) == (inserted, expected)


@given(ratio=ratios, insert=numbers, sample=numbers)
def test_settings_that_would_deadlock_are_refused(ratio, insert, sample) -> None:
    too_little = (ratio * insert + sample) / 2 * 0.99
    with pytest.raises(ConfigError, match="neither side waits for ever"):
        SamplesPerInsert(ratio, min_unrolls=1, insert_unrolls=insert, sample_unrolls=sample, slack=too_little)


@pytest.mark.parametrize("slack", [1.0, 2.0, 10.0])
def test_either_side_is_ahead_by_the_slack_and_no_more(slack) -> None:
    limiter = SamplesPerInsert(1.0, min_unrolls=5, insert_unrolls=1, sample_unrolls=1, slack=slack)
    assert limiter.observed == 0
    while limiter.may_insert():
        limiter.insert()
    assert limiter.inserted == 5 + slack
    while limiter.may_sample():
        limiter.sample()
    assert limiter.sampled == 2 * slack
    assert limiter.observed == 2.0, "counted from where sampling was possible"


def test_less_slack_than_is_refused_does_deadlock() -> None:
    """The bound is no superstition: a hair below it both sides wait."""
    limiter = SamplesPerInsert(1.0, min_unrolls=1, insert_unrolls=4, sample_unrolls=4)
    limiter._slack = int(3.5e6)
    limiter.inserted, limiter.sampled = 1, 0
    stuck = False
    for _ in range(50):
        if limiter.may_sample():
            limiter.sample()
        elif limiter.may_insert():
            limiter.insert()
        else:
            stuck = True
    assert stuck


def test_without_a_ratio_both_run_freely_once_there_is_something() -> None:
    limiter = SamplesPerInsert(None, min_unrolls=8, insert_unrolls=4, sample_unrolls=32, slack=0.5)
    assert limiter.may_insert() and not limiter.may_sample()
    limiter.insert()
    assert not limiter.may_sample()
    limiter.insert()
    for _ in range(100):
        assert limiter.may_insert() and limiter.may_sample()
        limiter.sample()
