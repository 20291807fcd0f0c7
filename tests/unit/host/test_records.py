from __future__ import annotations

import threading

import pytest

from aioseed.errors import RunDirectoryError
from aioseed.host.records import Records
from aioseed.telemetry.counters import Metrics


class Sink:
    def __init__(self) -> None:
        self.full = False
        self.steps = []

    def write(self, step, values):
        if self.full:
            raise RunDirectoryError("the disk is full", path="")
        self.steps.append(step)

    def close(self):
        pass


def test_a_sink_that_fails_costs_its_own_figures_and_is_told_once_each_time():
    metrics, sound, failing = Metrics(), Sink(), Sink()
    records = Records([failing, sound], metrics)
    told = []
    for step, full in enumerate([False, True, True, False, True]):
        failing.full = full
        told.append([trouble.message for trouble in records.write(step, {})])
    sentence = ["the disk is full; training goes on"]
    assert told == [[], sentence, [], [], sentence]
    assert (failing.steps, sound.steps) == ([0, 3], [0, 1, 2, 3, 4])
    assert metrics.snapshot() == {"metrics/failed": 3}


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_disk_that_hangs_is_told_of_once_and_waited_for(monkeypatch, hangs):
    answers, told = threading.Event(), []

    class Slow(Sink):
        def write(self, step, values):
            assert answers.wait(10.0)
            super().write(step, values)

    def late():
        told.append("late")
        answers.set()

    monkeypatch.setattr("aioseed.host.records.LATE_S", 0.01 if hangs else 10.0)
    if not hangs:
        answers.set()
    sink = Slow()
    assert await Records([sink], Metrics()).record(7, {}, late) == []
    assert (sink.steps, told) == ([7], ["late"] if hangs else [])
