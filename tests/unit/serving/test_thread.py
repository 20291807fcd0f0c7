"""Who runs the engine: the thread, or the caller while the thread rests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import numpy as np
import pytest

from aioseed.serving.intake import ClosedBatch
from aioseed.serving.rows import RowPool
from aioseed.serving.rule import Close
from aioseed.serving.thread import InferenceThread, Item, Released
from aioseed.specs import ArraySpec
from aioseed.wire.columns import StepLayout

ROWS = RowPool(StepLayout(ArraySpec("float32", (1,)), 0), 1).take()


def batch() -> ClosedBatch:
    slots, epochs = np.zeros(1, np.int64), np.ones(1, np.uint64)
    return ClosedBatch(ROWS, 1, [], slots, epochs, b"", b"", 0, 0.0, 0.0, Close.FULL)


class Recorder:
    def __init__(self, fail_at: object = None) -> None:
        self.seen: list[object] = []
        self.threads: list[str] = []
        self.handled: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.go_on = threading.Event()
        self.go_on.set()
        self.prompt = True
        self.more: list[bool] = []
        self.settled_after: list[int] = []
        self.answering_s = 0.0
        self.answers_take_s = 0.0
        self._fail_at = fail_at

    def handle(self, item: Item, *, more: bool = False) -> None:
        assert self.go_on.wait(10.0)
        self.threads.append(threading.current_thread().name)
        self.seen.append(item)
        self.more.append(more)
        if item is self._fail_at:
            raise ValueError("the device fell off the bus")
        self.answering_s += self.answers_take_s
        self.handled.put(item)

    def is_prompt(self, batch: ClosedBatch) -> bool:
        return self.prompt

    def settle(self) -> None:
        self.settled_after.append(len(self.seen))


def test_the_thread_does_everything_in_order_before_it_ends() -> None:
    engine, failures = Recorder(), queue.SimpleQueue()
    thread = InferenceThread(engine, failures.put)
    items = [Released(np.array([number]), "lease_ended") for number in range(100)]
    for item in items:
        thread.submit(item)
    thread.start()
    assert thread.stop(10.0)
    assert engine.seen == items and set(engine.threads) == {"aioseed-inference"}
    assert engine.more[:-1] == [True] * 99 and engine.settled_after == [100]
    assert failures.empty()


def test_a_failure_of_the_thread_is_told_once_and_ends_it() -> None:
    bad = Released(np.array([1]), "lease_ended")
    engine, failures = Recorder(fail_at=bad), queue.SimpleQueue()
    thread = InferenceThread(engine, failures.put)
    thread.start()
    thread.submit(bad)
    thread.submit(Released(np.array([2]), "lease_ended"))
    assert str(failures.get(timeout=10.0)) == "the device fell off the bus"
    assert thread.stop(10.0)
    assert engine.seen == [bad] and failures.empty()


def test_a_thread_that_does_not_end_in_time_is_said_so() -> None:
    engine = Recorder()
    engine.go_on.clear()
    thread = InferenceThread(engine, pytest.fail)
    thread.start()
    thread.submit(Released(np.array([1]), "lease_ended"))
    assert not thread.stop(0.0)
    engine.go_on.set()
    assert thread.stop(10.0)


@pytest.mark.parametrize("follows", [False, True])
def test_the_thread_follows_whoever_gives_it_work_if_told_to(monkeypatch: pytest.MonkeyPatch, follows: bool) -> None:
    led: list[object] = []

    class Follower:
        def __init__(self, *, enabled: bool) -> None:
            led.append(enabled)

        def lead(self) -> None:
            led.append("lead")

        def follow(self) -> None:
            led.append("follow")

    monkeypatch.setattr("aioseed.serving.thread.Follower", Follower)
    thread = InferenceThread(Recorder(), pytest.fail, follows=follows)
    thread.submit(Released(np.array([1]), "lease_ended"))
    thread.start()
    assert thread.stop(10.0)
    assert led == [follows, "lead", "follow"]


@pytest.fixture
def warm() -> Callable[..., tuple[Recorder, InferenceThread, queue.SimpleQueue[BaseException]]]:
    """Return a maker of threads that have handled one batch, which took so many seconds."""

    def make(takes_s: float, in_loop_s: float = 1.0, **options: object):
        ticks = iter([0.0, takes_s])
        engine, failures = Recorder(**options), queue.SimpleQueue()
        thread = InferenceThread(engine, failures.put, in_loop_s=in_loop_s, clock=lambda: next(ticks, 0.0))
        thread.start()
        thread.submit(batch())
        rest(thread, engine)
        return engine, thread, failures

    return make


def rest(thread: InferenceThread, engine: Recorder) -> None:
    """Wait until the thread has handled one more item and waits for the next."""
    engine.handled.get(timeout=10.0)
    while thread._done < thread._queued:
        threading.Event().wait(0.001)


def test_the_caller_handles_what_is_cheap_while_the_thread_rests(warm) -> None:
    engine, thread, failures = warm(takes_s=0.5)
    thread.submit(batch())
    assert engine.threads == ["aioseed-inference", threading.current_thread().name]
    assert engine.more == [False, False]
    assert thread.stop(10.0) and failures.empty()


def test_what_is_queued_keeps_its_place_before_what_is_cheap(warm) -> None:
    engine, thread, _ = warm(takes_s=0.5)
    engine.go_on.clear()
    released, last = Released(np.array([1]), "lease_ended"), batch()
    thread.submit(released)
    thread.submit(last)
    engine.go_on.set()
    assert thread.stop(10.0)
    assert engine.seen[1:] == [released, last] and set(engine.threads) == {"aioseed-inference"}


@pytest.mark.parametrize(("takes_s", "in_loop_s", "prompt"), [(1.5, 1.0, True), (0.0, 0.0, True), (0.5, 1.0, False)])
def test_the_thread_handles_what_is_dear_or_may_wait(warm, takes_s, in_loop_s, prompt) -> None:
    engine, thread, _ = warm(takes_s, in_loop_s)
    engine.prompt = prompt
    thread.submit(batch())
    assert thread.stop(10.0)
    assert engine.threads == ["aioseed-inference"] * 2


def test_what_is_no_batch_says_nothing_of_what_one_takes(warm) -> None:
    engine, thread, _ = warm(takes_s=1.5)
    for _ in range(16):
        thread.submit(Released(np.array([1]), "lease_ended"))  # takes no time
        rest(thread, engine)
    thread.submit(batch())
    assert thread.stop(10.0)
    assert set(engine.threads) == {"aioseed-inference"}


def test_one_batch_that_takes_long_does_not_make_all_dear() -> None:
    ticks = iter([0.0, 0.5, 1.0, 3.0])
    engine = Recorder()
    thread = InferenceThread(engine, pytest.fail, in_loop_s=1.0, clock=lambda: next(ticks, 0.0))
    thread.start()
    thread.submit(batch())
    rest(thread, engine)
    thread.submit(batch())  # takes 2 s, which makes the mean 0.6 s
    thread.submit(batch())
    assert engine.threads[1:] == [threading.current_thread().name] * 2
    assert thread.stop(10.0)


@pytest.mark.parametrize("answers_take_s", [0.0, 98.5])
def test_batches_that_become_dear_go_back_to_the_thread(answers_take_s: float) -> None:
    """But for what their answers take, of many connections, say: the loop sends them, whoever acts."""
    ticks = iter([0.0, 0.5, 1.0, 100.0])
    engine = Recorder()
    thread = InferenceThread(engine, pytest.fail, in_loop_s=1.0, clock=lambda: next(ticks, 0.0))
    thread.start()
    thread.submit(batch())
    rest(thread, engine)
    engine.answers_take_s = answers_take_s
    thread.submit(batch())  # takes 99 s, a sixteenth of which is more than a second
    thread.submit(batch())
    assert thread.stop(10.0)
    here = threading.current_thread().name
    assert engine.threads == ["aioseed-inference", here, here if answers_take_s else "aioseed-inference"]


def test_a_failure_in_the_callers_thread_is_told_once_and_ends_inference(warm) -> None:
    bad = batch()
    engine, thread, failures = warm(takes_s=0.5, fail_at=bad)
    thread.submit(bad)
    assert str(failures.get(timeout=10.0)) == "the device fell off the bus"
    thread.submit(batch())
    assert thread.stop(10.0)
    assert engine.seen[-1] is bad and failures.empty()
