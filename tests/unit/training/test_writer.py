from __future__ import annotations

import errno
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

from aioseed.errors import CheckpointError, SaveFailed
from aioseed.telemetry.counters import Metrics
from aioseed.training.config import CheckpointConfig
from aioseed.training.store import CheckpointStore, Snapshot
from aioseed.training.writer import CheckpointWriter, checkpoint_thread


class Inline(Executor):
    """Runs at once, in the caller's thread."""

    def submit(self, function, /, *arguments, **options):
        done = Future()
        done.set_result(function(*arguments, **options))
        return done


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"a": np.array(step)}, {})


def make(store, executor=None, **options):
    return CheckpointWriter(store, 1, executor or Inline(), Metrics(), **options)


def test_a_submitted_snapshot_is_saved_and_reported(tmp_path):
    reports = []
    moments_s = iter([100.0, 102.5])
    writer = make(CheckpointStore(tmp_path), on_report=reports.append, clock=lambda: next(moments_s))
    assert writer.last is None
    writer.submit(snapshot(3))
    assert reports == [writer.last]
    assert reports[0] == (3, tmp_path / "000000000003", None, 2.5)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_is_reported_and_the_next_save_works(tmp_path, faulty_files, code):
    reports = []
    store = CheckpointStore(tmp_path, files=faulty_files(3, OSError(code, "the disk says no")))
    writer = make(store, on_report=reports.append)
    released = []
    for step in (1, 2):
        writer.submit(snapshot(step)._replace(release=released.append))
    assert released == [False, True]
    assert isinstance(reports[0].error, CheckpointError)
    assert "the disk says no" in str(reports[0].error)
    assert reports[1].error is None
    assert writer._metrics.snapshot() == {"checkpoints/failed": 1, "checkpoints/saved": 1}


def test_an_unforeseen_failure_is_reported_too(tmp_path):
    class Broken(CheckpointStore):
        def save(self, snapshot, generation):
            raise ZeroDivisionError

    writer = make(Broken(tmp_path))
    writer.submit(snapshot(1))
    assert isinstance(writer.last.error, CheckpointError)
    assert isinstance(writer.last.error.__cause__, ZeroDivisionError)


def test_training_goes_on_while_saves_fail(kit, tmp_path, faulty_files):
    class AlwaysFull(faulty_files):
        def _fails(self, name):
            return True

    store = CheckpointStore(tmp_path, files=AlwaysFull(error=OSError(errno.ENOSPC, "full")))
    writer = make(store)
    config = kit.config(checkpoint=CheckpointConfig(every_s=None, every_updates=1))
    road = kit.road(config, [kit.batch(seed, 4) for seed in range(3)], save=writer.submit)
    while road.loop.step(0.0):
        pass
    assert road.loop.summary().version == 3
    assert writer._metrics.counter("checkpoints/failed").value == 3


class Slow(CheckpointStore):
    """Waits in `save` until let go."""

    def __init__(self, directory):
        super().__init__(directory)
        self.entered, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def save(self, snapshot, generation):
        self.entered.release()
        self.go_on.acquire()
        return super().save(snapshot, generation)


def test_submitting_never_waits_and_the_newest_that_waits_wins(tmp_path):
    store, executor, reports = Slow(tmp_path), ThreadPoolExecutor(2), []
    writer = make(store, executor, on_report=reports.append)
    writer.submit(snapshot(1))
    store.entered.acquire()
    released = []
    writer.submit(snapshot(2)._replace(release=released.append))
    writer.submit(snapshot(3))
    store.go_on.release(2)
    executor.shutdown(wait=True)
    assert released == [False]
    assert [report.step for report in reports] == [1, 3]
    assert writer._metrics.counter("checkpoints/superseded").value == 1


def test_the_last_save_waits_for_its_end(tmp_path):
    executor = checkpoint_thread()
    writer = make(CheckpointStore(tmp_path), executor)
    assert writer.finish(snapshot(9)) == tmp_path / "000000000009"
    executor.shutdown(wait=True)


def test_the_last_save_raises_what_went_wrong(tmp_path, faulty_files):
    writer = make(CheckpointStore(tmp_path, files=faulty_files(1, OSError(errno.ENOSPC, "full"))))
    with pytest.raises(SaveFailed, match="full") as caught:
        writer.finish(snapshot(1))
    assert caught.value.exit_code == 1, "2 would say that no other start can mend it"


def test_the_last_save_takes_as_long_as_it_takes_and_says_so(tmp_path, monkeypatch):
    store, executor = Slow(tmp_path), checkpoint_thread()
    writer = make(store, executor)
    monkeypatch.setattr("aioseed.training.writer.STILL_WRITING_S", 0.001)
    monkeypatch.setattr("aioseed.training.writer.log.warning", lambda words: store.go_on.release())
    assert writer.finish(snapshot(1)) == tmp_path / "000000000001"
    executor.shutdown(wait=True)
