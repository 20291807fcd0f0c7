from __future__ import annotations

import threading

import pytest

from aioseed.errors import AioseedError
from aioseed.experience.queue import UnrollQueue


@pytest.fixture
def queue(layout):
    return UnrollQueue(layout, batch_unrolls=3, queue_batches=2)


def fill(queue):
    buffer = queue.acquire()
    queue.put(buffer)
    return buffer.batch


def test_batches_come_out_in_the_order_in_which_they_went_in(queue):
    put = [fill(queue), fill(queue)]
    assert queue.ready == 2
    assert [queue.take(0.0), queue.take(0.0)] == put
    assert queue.take(0.0) is None


def test_a_batch_has_room_for_the_unrolls_of_one_call_and_says_so(queue, layout):
    batch = fill(queue)
    assert batch.count == 3
    assert batch.columns.reward.shape == (layout.rows, 3)


def test_buffers_go_round_and_none_is_made_after_the_start(queue):
    seen = set()
    for _ in range(12):
        fill(queue)
        batch = queue.take(0.0)
        seen.add(id(batch.columns))
        queue.give_back(batch)
    assert len(seen) == 4


def test_a_batch_that_training_holds_is_never_filled_again(queue):
    fill(queue)
    held = queue.take(0.0)
    others = [queue.acquire().batch for _ in range(3)]
    assert all(other.columns is not held.columns for other in others)
    assert queue.statistics().free == 0


def test_giving_back_twice_is_refused(queue):
    fill(queue)
    batch = queue.take(0.0)
    queue.give_back(batch)
    with pytest.raises(AioseedError, match="not lent"):
        queue.give_back(batch)


def test_closing_wakes_both_sides(layout):
    waits = threading.Event()

    def clock() -> float:
        waits.set()
        return 0.0

    queue = UnrollQueue(layout, batch_unrolls=1, queue_batches=1, clock=clock)
    for _ in range(3):
        queue.acquire()
    results = []
    filler = threading.Thread(target=lambda: results.append(queue.acquire()), daemon=True)
    taker = threading.Thread(target=lambda: results.append(queue.take(60.0)), daemon=True)
    filler.start()
    taker.start()
    assert waits.wait(10)
    queue.close()
    filler.join(10)
    taker.join(10)
    assert results == [None, None]


def test_what_waits_when_the_queue_closes_can_still_be_taken(queue):
    batch = fill(queue)
    queue.close()
    assert queue.acquire() is None
    assert queue.take(60.0) is batch
    assert queue.take(60.0) is None


def test_every_batch_crosses_between_two_threads_exactly_once(layout):
    queue = UnrollQueue(layout, batch_unrolls=1, queue_batches=2)
    taken = []

    def train() -> None:
        while (batch := queue.take(10.0)) is not None:
            taken.append(int(batch.columns.reward[0, 0]))
            batch.columns.reward[0, 0] = -1
            queue.give_back(batch)

    training = threading.Thread(target=train, daemon=True)
    training.start()
    for number in range(200):
        buffer = queue.acquire()
        buffer.batch.columns.reward[0, 0] = number
        queue.put(buffer)
    queue.close()
    training.join(10)
    assert taken == list(range(200))
    assert queue.statistics()[:4] == (0, 0, 4, 200)


def test_statistics_say_where_the_buffers_are(queue):
    for _ in range(3):
        fill(queue)
    queue.take(0.0)
    assert queue.statistics() == (2, 1, 1, 3, 0, 0.0)  # two wait, one is lent, one is free


def test_the_time_for_which_inference_waits_for_a_buffer_is_measured(layout):
    waits = threading.Event()
    times_s = iter((5.0, 7.5, 20.0, 21.0))

    def clock() -> float:
        waits.set()
        return next(times_s)

    queue = UnrollQueue(layout, batch_unrolls=1, queue_batches=1, clock=clock)
    for _ in range(3):
        fill(queue)
    for _ in range(2):
        batch = queue.take(0.0)
        waits.clear()
        filler = threading.Thread(target=lambda: fill(queue), daemon=True)
        filler.start()
        assert waits.wait(10)
        queue.give_back(batch)
        filler.join(10)
    statistics = queue.statistics()
    assert (statistics.put, statistics.blocked, statistics.blocked_s) == (5, 2, 3.5)


def test_what_is_cleared_can_be_filled_again_and_nothing_once_the_queue_is_closed(queue):
    batch = fill(queue)
    assert queue.clear() == [batch]
    assert (queue.free, queue.ready) == (4, 0)
    queue.close()
    assert queue.free == 0
