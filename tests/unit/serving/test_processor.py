from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from aioseed.serving.processor import Follower

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are placed on Linux only")


@pytest.fixture
def processors() -> Iterator[list[int]]:
    """Give the processors of this thread, which may do with them what it likes until the test ends."""
    allowed = os.sched_getaffinity(0)
    yield sorted(allowed)
    os.sched_setaffinity(0, allowed)


def placed_by(follower: Follower) -> set[int]:
    """Return where a new thread may run after it has followed."""
    places: list[set[int]] = []

    def body() -> None:
        follower.follow()
        places.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return places[0]


def test_the_follower_goes_where_the_leader_is_and_the_leader_stays_free(processors: list[int]) -> None:
    follower = Follower()
    for processor in processors:
        os.sched_setaffinity(0, {processor})
        follower.lead()
        os.sched_setaffinity(0, processors)
        assert placed_by(follower) == {processor}
    assert sorted(os.sched_getaffinity(0)) == processors


def test_nobody_moves_before_there_is_a_leader_or_when_it_is_switched_off(processors: list[int]) -> None:
    assert sorted(placed_by(Follower())) == processors
    off = Follower(enabled=False)
    off.lead()
    assert sorted(placed_by(off)) == processors


def test_a_processor_that_was_taken_away_ends_the_following(
    processors: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, mask: set[int]) -> None:
        raise OSError(22, "Invalid argument")

    follower = Follower()
    follower.lead()
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    follower.follow()
    monkeypatch.undo()
    follower.lead()
    assert sorted(placed_by(follower)) == processors
