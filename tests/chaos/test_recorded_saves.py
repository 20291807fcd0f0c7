"""A real save, recorded, and rebuilt as every crash may leave it; restored from each."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from aioseed.errors import CheckpointError
from aioseed.training.store import CheckpointStore, Snapshot

from .crash_disk import Operation, Recorder, losable, rebuild

SEED = 20


class Piece(NamedTuple):
    """A segment of replay."""

    number: int

    @property
    def name(self) -> str:
        return f"replay-{self.number:012d}-1"

    @contextmanager
    def read(self) -> Iterator[dict[str, np.ndarray]]:
        yield {"rows/0": np.full(50, self.number)}


def snapshot(step: int) -> Snapshot:
    arrays = {"learner/params/w": np.full((8, 4), step, np.float32), "step": np.array(step)}
    pieces = tuple(Piece(number) for number in range(step, step + 3))
    return Snapshot(step, arrays, {"training": {"version": step}, "ledger": {"accepted": 10 * step}}, pieces)


def restored(folder: Path) -> int | None:
    """Return the step that a run goes on from, of which every number must be right; None if it begins anew."""
    checkpoint = CheckpointStore(folder / "checkpoints").newest()
    if checkpoint is None:
        return None
    step = checkpoint.manifest.step
    expected = snapshot(step)
    assert checkpoint.state == expected.state
    assert checkpoint.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(checkpoint.arrays[name], array)
    for piece in expected.segments:
        with piece.read() as arrays:
            np.testing.assert_array_equal(checkpoint.segment(piece.name)["rows/0"], arrays["rows/0"])
    return step


class Recording(NamedTuple):
    """What was there, what one save did, and what may be restored while it goes on and after it."""

    before: Path
    operations: list[Operation]
    meanwhile: set[int | None]
    afterwards: int


def record(folder: Path, earlier: list[int], step: int) -> Recording:
    """Save the `earlier` steps, then record the save of `step`."""
    live = folder / "live"
    live.mkdir()
    for one in earlier:
        CheckpointStore(live / "checkpoints").save(snapshot(one), 1)
    shutil.copytree(live, folder / "before")
    recorder = Recorder(live)
    store = CheckpointStore(live / "checkpoints", files=recorder)
    store.newest()
    store.save(snapshot(step), 2)
    return Recording(folder / "before", recorder.operations, {max(earlier, default=None), step}, step)


@pytest.fixture(params=["the first save", "a later one that removes an old one"])
def recording(request, tmp_path) -> Recording:
    return record(tmp_path, [] if request.param == "the first save" else [1, 2], 3)


def crash_everywhere(recording: Recording, folder: Path, samples: int) -> int:
    """Restore after a crash at every operation, each with `samples` choices of what is lost; return how many."""
    choose, tried = random.Random(SEED), 0
    for length in range(len(recording.operations) + 1):
        operations = recording.operations[:length]
        may_go = losable(operations)
        choices = [set(), set(may_go), *({i for i in may_go if choose.random() < 0.5} for _ in range(samples))]
        for lost in choices:
            rebuild(recording.before, operations, lost, folder, choose)
            step = restored(folder)
            assert step in recording.meanwhile, (length, lost, step)
            if length == len(recording.operations):
                assert step == recording.afterwards, f"what was saved is gone without {lost}"
            tried += 1
            if tried % 10 == 0:
                goes_on(folder)
            shutil.rmtree(folder)
    return tried


def goes_on(folder: Path) -> None:
    """Whatever a crash left, the next learner clears it away and saves."""
    store = CheckpointStore(folder / "checkpoints")
    store.sweep()
    store.newest()
    store.save(snapshot(4), 3)
    assert restored(folder) == 4
    assert not list((folder / "checkpoints").glob("*.tmp"))


def test_a_crash_at_any_operation_restores_the_save_before_or_the_new_one(recording, tmp_path):
    crash_everywhere(recording, tmp_path / "crashed", samples=3)


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_nothing_else_is_restored_whatever_the_disk_forgot(recording, tmp_path, full):
    samples = (25_000 if full else 2_000) // len(recording.operations)
    tried = crash_everywhere(recording, tmp_path / "crashed", samples)
    print(f"seed {SEED}: {len(recording.operations)} operations, {tried} crashes, 0 bad restores")


class Unsynced(Recorder):
    """Never waits for a disk."""

    def sync(self, descriptor: int) -> None:
        del descriptor


def test_a_store_that_does_not_sync_would_be_caught(tmp_path):
    live = tmp_path / "live"
    live.mkdir()
    recorder = Unsynced(live)
    CheckpointStore(live / "checkpoints", files=recorder).save(snapshot(3), 1)
    (tmp_path / "before").mkdir()
    recording = Recording(tmp_path / "before", recorder.operations, {None, 3}, 3)
    with pytest.raises((AssertionError, CheckpointError)):
        crash_everywhere(recording, tmp_path / "crashed", samples=3)


def test_the_model_tells_what_lasts():
    operations = [
        Operation("mkdir", Path("a")),
        Operation("create", Path("a/f")),
        Operation("write", Path("a/f"), data=b"x"),
    ]
    assert losable(operations) == [2, 1, 0]
    assert losable([*operations, Operation("sync", Path("a/f"))]) == [1, 0]
    assert losable([*operations, Operation("sync_directory", Path("a"))]) == [2, 0]
    assert losable([*operations, Operation("sync_directory", Path())]) == [2, 1]
