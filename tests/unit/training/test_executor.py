from __future__ import annotations

import asyncio
import threading

import pytest

from aioseed.errors import CheckpointError, TrainingFailed
from aioseed.training.executor import BackgroundExecutor, InlineExecutor


class Job:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.steps = 0
        self.thread = ""

    def run(self, stop: threading.Event) -> int:
        self.thread = threading.current_thread().name
        if self.error is not None:
            raise self.error
        stop.wait()
        return 42

    def step(self, timeout_s: float) -> bool:
        self.steps += 1
        return self.steps <= 2

    def finish(self) -> int:
        return self.steps


async def test_a_job_runs_on_its_own_named_thread_until_told_to_stop():
    executor, job = BackgroundExecutor[int](), Job()
    executor.start(job)
    executor.stop()
    executor.stop()
    assert await executor.result() == 42
    assert await executor.result(1.0) == 42
    assert job.thread == "aioseed-training"


async def test_one_job_an_executor():
    for executor in (BackgroundExecutor[int](), InlineExecutor[int]()):
        executor.start(Job())
        with pytest.raises(RuntimeError):
            executor.start(Job())
        executor.stop()
        await executor.result()


async def test_an_error_of_ours_reaches_whoever_waits():
    executor = BackgroundExecutor[int]()
    executor.start(Job(CheckpointError("no", path="x")))
    with pytest.raises(CheckpointError):
        await executor.result()


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), TimeoutError()])
async def test_any_other_failure_is_training_failed(error):
    executor = BackgroundExecutor[int]()
    executor.start(Job(error))
    with pytest.raises(TrainingFailed, match="aioseed-training failed") as caught:
        await executor.result(10.0)
    assert caught.value.__cause__ is error


async def test_a_job_that_does_not_end_in_time_is_said_so():
    executor = BackgroundExecutor[int]()
    executor.start(Job())
    with pytest.raises(TrainingFailed, match="did not end within 0 s"):
        await executor.result(0.0)
    executor.stop()
    assert await executor.result() == 42


async def test_cancelling_one_who_waits_does_not_touch_the_job():
    executor = BackgroundExecutor[int]()
    executor.start(Job())
    waiting = asyncio.ensure_future(executor.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    executor.stop()
    assert await executor.result() == 42


async def test_inline_a_job_advances_only_when_told():
    executor, job = InlineExecutor[int](), Job()
    with pytest.raises(RuntimeError):
        await executor.result()
    assert not executor.step()
    executor.start(job)
    assert [executor.step() for _ in range(3)] == [True, True, False]
    executor.stop()
    assert not executor.step()
    assert await executor.result() == 3
