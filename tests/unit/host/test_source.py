from __future__ import annotations

import threading
from typing import Any

import pytest

from aioseed.host.config import StopConfig
from aioseed.host.source import StoppingSource


class Assembler:
    ready = 3

    def __init__(self) -> None:
        self.given_back: list[object] = []

    def take(self, timeout_s: float) -> str:
        return f"batch after {timeout_s} s"

    def give_back(self, batch: object) -> None:
        self.given_back.append(batch)


class Episodes:
    return_mean = 475.0
    window_count = 100


def source(goal: float | None, **episodes: Any) -> tuple[StoppingSource, threading.Event, Assembler]:
    seen, assembler, stop = Episodes(), Assembler(), threading.Event()
    for name, value in episodes.items():
        setattr(seen, name, value)
    made = StoppingSource(assembler, seen, StopConfig(return_mean=goal, episodes=100))  # type: ignore[arg-type]
    made.end_with(stop)
    return made, stop, assembler


@pytest.mark.parametrize(
    ("goal", "episodes"),
    [(None, {}), (475.1, {}), (475.0, {"window_count": 99}), (475.0, {"return_mean": float("nan")})],
)
def test_batches_come_until_the_goal_is_reached(goal: float | None, episodes: dict[str, float]) -> None:
    made, stop, assembler = source(goal, **episodes)
    batch = made.take(0.5)
    assert batch == "batch after 0.5 s" and made.ready == 3
    made.give_back(batch)
    assert assembler.given_back == [batch]
    assert not made.solved and not stop.is_set()


def test_the_goal_ends_the_run() -> None:
    made, stop, _ = source(475.0)
    assert made.take(0.5) is None
    assert made.solved and stop.is_set()
