"""The replay measurement measures something: every figure is there and above 0."""

from __future__ import annotations

import json

import pytest

from aioseed.bench import replay
from aioseed.bench.replay import Figures, measure, measure_replay


def test_every_figure_is_measured_at_every_size() -> None:
    found = measure(entries=(2000, 4000), steps=5, rounds=1)
    ours = found["aioseed"]
    assert min(ours.inserts_per_s, ours.samples_per_s, ours.time_major_samples_per_s) > 0
    assert set(ours.updates_per_s) == {2000, 4000} and min(ours.updates_per_s.values()) > 0


def test_ratios_stand_beside_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Figures(10, 30, 30, {10: 8, 100: 4}), Figures(20, 30, 20, {10: 16, 100: 16})
    monkeypatch.setattr(replay, "measure", lambda entries, rounds: {"aioseed": ours, "cpprb": theirs})
    figures = measure_replay((10, 100))
    wanted = {"inserts": 0.5, "samples": 1.0, "time_major_samples": 1.5, "updates": {"10": 0.5, "100": 0.25}}
    assert figures["share_of_cpprb"] == wanted
    assert figures["updates_lowest_to_highest"] == 2 and json.dumps(figures)


def test_without_cpprb_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "measure", lambda entries, rounds: {"aioseed": Figures(1, 1, 1, {10: 1})})
    assert measure_replay((10,))["share_of_cpprb"] == "cpprb is not installed"
