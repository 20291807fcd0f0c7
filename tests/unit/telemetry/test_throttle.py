from __future__ import annotations

from aioseed.telemetry.throttle import Throttle


def test_a_throttle_tells_what_it_kept_silent_about():
    throttle = Throttle(1.0)
    assert [throttle.ask("a", at_s) for at_s in (0.0, 0.1, 0.9, 1.0, 1.1)] == [1, None, None, 3, None]
    assert throttle.ask("b", 0.5) == 1


def test_so_many_come_at_once_and_then_one_each_so_many_seconds():
    throttle = Throttle(2.0, at_once=3)
    assert [throttle.ask("a", 0.0) for _ in range(5)] == [1, 1, 1, None, None]
    assert [throttle.ask("a", at_s) for at_s in (1.9, 2.0, 2.0)] == [None, 4, None]
    assert [throttle.ask("a", 1000.0) for _ in range(4)] == [2, 1, 1, None]  # and no more after a long silence
