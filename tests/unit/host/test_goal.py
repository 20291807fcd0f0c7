from __future__ import annotations

from typing import Any

import pytest

from aioseed.host.config import StopConfig
from aioseed.host.goal import Goal


class Episodes:
    return_mean = 475.0
    window_count = 100


def goal(wanted: float | None, **episodes: Any) -> tuple[Goal, Episodes]:
    seen = Episodes()
    for name, value in episodes.items():
        setattr(seen, name, value)
    return Goal(seen, StopConfig(return_mean=wanted, episodes=100)), seen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "episodes"),
    [(None, {}), (475.1, {}), (475.0, {"window_count": 99}), (475.0, {"return_mean": float("nan")})],
)
def test_a_run_goes_on_until_its_goal_is_reached(wanted: float | None, episodes: dict[str, float]) -> None:
    made, _ = goal(wanted, **episodes)
    assert not made.reached() and not made.solved


def test_a_goal_that_was_reached_stays_reached() -> None:
    made, seen = goal(475.0)
    assert not made.solved  # nobody has looked yet
    assert made.reached()
    seen.return_mean = 100.0
    assert made.reached() and made.solved
