"""The replay measurement measures something: every figure is there and above 0."""

from __future__ import annotations

from aioseed.bench.replay import measure


def test_every_figure_is_measured_at_every_size() -> None:
    found = measure(entries=(2000, 4000), steps=5, rounds=1)
    ours = found["aioseed"]
    assert ours.inserts_per_s > 0 and ours.samples_per_s > 0
    assert set(ours.updates_per_s) == {2000, 4000} and min(ours.updates_per_s.values()) > 0
