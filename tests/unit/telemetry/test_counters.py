from __future__ import annotations

import pytest

from aioseed.telemetry.counters import Metrics


def test_a_counter_only_rises():
    counter = Metrics().counter("serving/batches")
    counter.add()
    counter.add(4)
    assert counter.value == 5
    with pytest.raises(ValueError):
        counter.add(-1)


def test_a_name_means_one_object():
    metrics = Metrics()
    assert metrics.counter("a") is metrics.counter("a")
    assert metrics.gauge("a") is metrics.gauge("a")
    assert metrics.quantiles("a_ms") is metrics.quantiles("a_ms", low=1.0, high=2.0)


def test_two_runs_share_nothing():
    Metrics().counter("a").add()
    assert Metrics().counter("a").value == 0


def test_a_snapshot_has_every_value_and_quantiles_only_of_what_was_seen():
    metrics = Metrics()
    metrics.counter("errors/protocol").add(2)
    metrics.gauge("serving/fill").set(0.5)
    metrics.quantiles("serving/wait_ms").observe(4.0)
    metrics.quantiles("serving/never_ms")
    assert metrics.snapshot() == {
        "errors/protocol": 2,
        "serving/fill": 0.5,
        "serving/wait_ms/p50": 4.0,
        "serving/wait_ms/p99": 4.0,
        "serving/wait_ms/count": 1,
    }
