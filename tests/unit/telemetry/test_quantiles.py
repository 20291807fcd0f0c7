from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.telemetry.quantiles import Quantiles

TOLERANCE = 10 ** (1 / 50) - 1  # one bucket


@given(st.lists(st.floats(1e-2, 1e4), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_bucket_of_the_nearest_rank(values, share):
    histogram = Quantiles(low=1e-2, high=1e4)
    histogram.observe_many(np.array(values))
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=TOLERANCE)
    assert histogram.mean == pytest.approx(np.mean(values))


@given(st.lists(st.floats(0, 1e6) | st.just(math.inf), max_size=50))
def test_one_by_one_and_many_at_once_count_alike(values):
    single, many = Quantiles(low=0.1, high=1e3), Quantiles(low=0.1, high=1e3)
    for value in values:
        single.observe(value)
    many.observe_many(values)
    assert (single._counts == many._counts).all()
    assert single.count == len(values)
    extremes = [[histogram.quantile(share) for share in (0, 1)] for histogram in (single, many)]
    np.testing.assert_array_equal(*extremes)
    assert single.mean == pytest.approx(many.mean, nan_ok=True)


def test_what_is_out_of_range_is_reported_as_the_extreme_that_was_seen():
    histogram = Quantiles(low=1.0, high=10.0)
    histogram.observe_many([0.0, 0.5, 500.0])
    assert (histogram.quantile(0), histogram.quantile(1)) == (0.0, 500.0)


def test_nothing_observed_has_no_quantile():
    histogram = Quantiles(low=1.0, high=10.0)
    histogram.observe_many([])
    assert math.isnan(histogram.p50)
    assert math.isnan(histogram.p99)
    assert math.isnan(histogram.mean)


def test_the_window_since_a_copy_holds_only_what_came_after():
    histogram = Quantiles(low=0.1, high=100.0)
    histogram.observe_many([1.0] * 10)
    earlier = histogram.copy()
    histogram.observe_many([50.0] * 2)
    window = histogram.since(earlier)
    assert (window.count, window.mean) == (2, 50.0)
    assert window.p50 == pytest.approx(50.0, rel=TOLERANCE)
    assert earlier.count == 10


@pytest.mark.parametrize("observe", [lambda h: h.observe(math.nan), lambda h: h.observe_many([1.0, math.nan])])
def test_nan_is_refused_and_nothing_is_counted(observe):
    histogram = Quantiles(low=0.1, high=100.0)
    with pytest.raises(ValueError):
        observe(histogram)
    assert histogram.count == 0


def test_different_buckets_do_not_mix():
    with pytest.raises(ValueError, match="different buckets"):
        Quantiles(low=0.1, high=100.0).since(Quantiles(low=0.2, high=200.0))


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="a quantile lies in"):
        Quantiles(low=0.1, high=100.0).quantile(share)
