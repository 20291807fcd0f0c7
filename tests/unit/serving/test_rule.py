"""The closing rule: its clauses one by one, and a simulation of actors of two speeds and a frozen one."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import NamedTuple

import pytest

from aioseed.serving.rule import Close, Limits, Waiting, close_now, patience_s

LIMITS = Limits(max_rows=64, max_in_flight=2, deadline_s=0.02)


def waiting(**changes: float) -> Waiting:
    base = Waiting(rows=4, expected=32, recent=16, in_flight=0, age_s=0.0, idle_s=0.0, service_s=0.005)
    return base._replace(**changes)


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (waiting(rows=0, expected=0), Close.NO),
        (waiting(rows=4), Close.NO),
        (waiting(rows=8), Close.ENOUGH),
        (waiting(rows=7), Close.NO),
        (waiting(rows=8, arriving=True), Close.NO),
        (waiting(rows=8, arriving=True, idle_s=0.00099), Close.NO),
        (waiting(rows=8, arriving=True, idle_s=0.001), Close.ENOUGH),
        (waiting(rows=8, arriving=True, idle_s=0.00019, service_s=0.0002), Close.NO),
        (waiting(rows=8, arriving=True, idle_s=0.0002, service_s=0.0002), Close.ENOUGH),
        (waiting(rows=32, arriving=True), Close.ALL),
        (waiting(rows=1, arriving=True, idle_s=0.005), Close.PATIENCE),
        (waiting(rows=8, in_flight=1), Close.NO),
        (waiting(rows=32, in_flight=1), Close.ALL),
        (waiting(rows=32, in_flight=2), Close.NO),
        (waiting(rows=64, expected=100, in_flight=1), Close.FULL),
        (waiting(rows=1, age_s=0.02), Close.DEADLINE),
        (waiting(rows=1, age_s=0.0199), Close.NO),
        (waiting(rows=1, idle_s=0.005), Close.PATIENCE),
        (waiting(rows=1, idle_s=0.0049), Close.NO),
        (waiting(rows=1, idle_s=0.005, in_flight=1), Close.NO),
        (waiting(rows=0, idle_s=1.0, expected=0), Close.NO),
        (waiting(rows=1, idle_s=0.0009, service_s=0.0007), Close.NO),
        (waiting(rows=1, idle_s=0.001, service_s=0.0007), Close.PATIENCE),
        (waiting(rows=1, idle_s=0.00039, service_s=0.0002), Close.NO),
        (waiting(rows=1, idle_s=0.0004, service_s=0.0002), Close.PATIENCE),
        (waiting(rows=1, idle_s=0.019, service_s=math.inf), Close.NO),
        (waiting(rows=1, recent=0, expected=5), Close.NO),
        (waiting(rows=1, recent=3, expected=5), Close.NO),
        (waiting(rows=2, recent=3, expected=5), Close.ENOUGH),
        (waiting(rows=63, expected=1000, recent=1000), Close.NO),
        (waiting(rows=64, expected=1000, recent=1000), Close.FULL),
    ],
)
def test_each_clause(state: Waiting, answer: Close) -> None:
    assert close_now(state, LIMITS) is answer


def test_lockstep_closes_with_exactly_all() -> None:
    limits = LIMITS._replace(lockstep_rows=10)
    assert close_now(waiting(rows=9, age_s=99.0), limits) is Close.NO
    assert close_now(waiting(rows=10, in_flight=1), limits) is Close.ALL


class Actor(NamedTuple):
    environments: int
    step_s: float
    frozen_from_s: float = float("inf")


class Simulation:
    """Actors that step for a fixed time, a device that serves a batch in a fixed time, and the rule between them.

    Without patience the device counts as one that has not served anything yet.
    """

    def __init__(self, actors: list[Actor], device_s: float, limits: Limits, *, patient: bool = True) -> None:
        self.actors, self.device_s, self.limits = actors, device_s, limits
        self.service_s = device_s if patient else math.inf
        self.now_s = 0.0
        self.closes: list[tuple[float, Close, int]] = []
        self.answers: dict[int, list[float]] = {index: [] for index in range(len(actors))}
        self._events: list[tuple[float, int, str, tuple[int, ...]]] = []
        self._ties = 0
        self._open: list[int] = []
        self._opened_s = 0.0
        self._idle_from_s = 0.0
        self._flying: list[tuple[int, ...]] = []
        self._late: set[int] = set()
        self._recent: list[set[int]] = [set(), set()]
        for index in range(len(actors)):
            self._later(actors[index].step_s, "arrive", (index,))

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, kind, who = heapq.heappop(self._events)
            if kind == "arrive":
                self._late.discard(who[0])
                if not self._open:
                    self._opened_s = self.now_s
                    self._later(self.limits.deadline_s, "deadline", ())
                self._open.append(who[0])
            elif kind == "answer":
                self._flying.remove(who)
                self._idle_from_s = self.now_s
                for index in who:
                    self.answers[index].append(self.now_s)
                    done_s = self.now_s + self.actors[index].step_s
                    if done_s < self.actors[index].frozen_from_s:
                        self._later(self.actors[index].step_s, "arrive", (index,))
            self._poll()
            if self._open and not self._flying and self.service_s < math.inf:
                since_s = max(self._opened_s, self._idle_from_s)
                self._later(max(since_s + patience_s(self.service_s) - self.now_s, 1e-6), "patience", ())
            if kind == "deadline" and self._open:
                self._later(max(self._opened_s + self.limits.deadline_s - self.now_s, 1e-6), "deadline", ())

    def _poll(self) -> None:
        flying = {index for batch in self._flying for index in batch}
        count = self._count
        state = Waiting(
            rows=count(self._open),
            expected=count(set(range(len(self.actors))) - flying - self._late),
            recent=count(self._recent[0] | self._recent[1]),
            in_flight=len(self._flying),
            age_s=self.now_s - self._opened_s + 1e-12,
            idle_s=self.now_s - max(self._opened_s, self._idle_from_s) + 1e-12,
            service_s=self.service_s,
        )
        cause = close_now(state, self.limits)
        if cause is Close.NO:
            return
        batch = tuple(self._open)
        self._open = []
        self._recent = [self._recent[1], set(batch)]
        if cause is Close.DEADLINE:
            self._late |= set(range(len(self.actors))) - flying - set(batch)
        self.closes.append((self.now_s, cause, state.rows))
        busy_until_s = self.now_s + self.device_s * (1 + len(self._flying))
        self._flying.append(batch)
        self._later(busy_until_s - self.now_s, "answer", batch)

    def _count(self, who: set[int] | list[int]) -> int:
        return sum(self.actors[index].environments for index in who)

    def _later(self, delay_s: float, kind: str, who: tuple[int, ...]) -> None:
        self._ties += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._ties, kind, who))


def test_a_frozen_actor_costs_the_others_at_most_one_deadline() -> None:
    """Eight actors of two speeds; one of the eight freezes. The others' longest pause is one deadline, once."""
    speeds = [0.001] * 4 + [0.0013] * 4
    actors = [Actor(8, step_s) for step_s in speeds]
    actors[2] = Actor(8, 0.001, frozen_from_s=0.5)
    simulation = Simulation(actors, device_s=0.0002, limits=LIMITS)
    simulation.run(2.0)
    for index, times in simulation.answers.items():
        if index == 2:
            assert times[-1] < 0.51
            continue
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert max(pauses) <= LIMITS.deadline_s + 0.002
        assert sum(pause > LIMITS.deadline_s / 2 for pause in pauses) <= 1
        assert len(times) > 2.0 / 0.0025


def test_when_most_environments_freeze_the_rest_pays_once() -> None:
    """Without anything to tell what serving takes, they are waited for until the deadline, once."""
    actors = [Actor(16, 0.001), *(Actor(16, 0.001, frozen_from_s=0.1) for _ in range(5))]
    simulation = Simulation(actors, device_s=0.0002, limits=LIMITS, patient=False)
    simulation.run(1.0)
    late = [cause for at_s, cause, _ in simulation.closes if at_s > 0.1 and cause is Close.DEADLINE]
    assert 0 < len(late) <= 2  # one for the batch under way when they froze, one to forget them
    assert len(simulation.answers[0]) > 500


def test_an_idle_device_does_not_wait_for_the_frozen() -> None:
    actors = [Actor(16, 0.001), *(Actor(16, 0.001, frozen_from_s=0.1) for _ in range(5))]
    simulation = Simulation(actors, device_s=0.0002, limits=LIMITS)
    simulation.run(1.0)
    assert all(cause is not Close.DEADLINE for _, cause, _ in simulation.closes)
    pauses = [after - before for before, after in itertools.pairwise(simulation.answers[0])]
    assert max(pauses) < 0.0025  # a step, patience, a batch


def longest_latency_s(*, patient: bool) -> float:
    """Step eight environments in phase but for three of them, which are a little behind; return the longest latency."""
    actors = [Actor(5, 0.01), Actor(3, 0.0105)]
    simulation = Simulation(actors, device_s=0.0002, limits=LIMITS, patient=patient)
    simulation.run(0.5)
    pauses = [
        after - before - actors[index].step_s
        for index, times in simulation.answers.items()
        for before, after in itertools.pairwise(times)
    ]
    return max(pauses)


def test_who_fell_behind_does_not_wait_for_the_others_to_come_round() -> None:
    assert longest_latency_s(patient=True) < 0.002
    assert longest_latency_s(patient=False) > 0.005


def test_two_speeds_overlap_without_tiny_batches() -> None:
    """Device and environments overlap, and a batch holds a fair share of the environments on average."""
    actors = [Actor(8, 0.001) for _ in range(4)] + [Actor(8, 0.004) for _ in range(4)]
    simulation = Simulation(actors, device_s=0.0003, limits=LIMITS)
    simulation.run(2.0)
    sizes = [rows for _, _, rows in simulation.closes]
    assert sum(sizes) / len(sizes) >= 16
    fast = len(simulation.answers[0]) / 2.0
    assert fast > 0.5 / 0.0013
