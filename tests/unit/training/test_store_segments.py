"""Segments of replay in the checkpoint store: written once, shared by later checkpoints, verified like all else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from aioseed.errors import CheckpointError
from aioseed.telemetry.counters import Metrics
from aioseed.training import manifest as manifests
from aioseed.training import store as store_module
from aioseed.training.store import CheckpointStore, Snapshot
from aioseed.training.writer import CheckpointWriter


class Piece:
    def __init__(self, number: int, *, gone: bool = False) -> None:
        self.name = f"replay-{number:012d}-1"
        self.reads = 0
        self.gone = gone
        self.arrays = {"rows/0": np.full((2, 3), number), "identity/0": np.array([number], np.uint32)}

    @contextmanager
    def read(self) -> Iterator[Mapping[str, np.ndarray]]:
        self.reads += 1
        if self.gone:
            raise CheckpointError("replay needed the memory that was being saved", path="")
        yield self.arrays


def snapshot(step: int, *pieces: Piece, released: list[bool] | None = None) -> Snapshot:
    release = (lambda saved: None) if released is None else released.append
    return Snapshot(step, {"a": np.array(step)}, {"replay": {"next": step}}, pieces, release)


@pytest.fixture
def pieces() -> list[Piece]:
    return [Piece(number) for number in range(5)]


def test_a_segment_is_written_once_and_shared_by_later_checkpoints(tmp_path: Path, pieces: list[Piece]) -> None:
    store = CheckpointStore(tmp_path / "c", keep=2)
    paths = [store.save(snapshot(step, *pieces[step - 1 : step + 2]), 1) for step in (1, 2, 3)]
    assert [piece.reads for piece in pieces] == [1] * 5
    assert not paths[0].exists()
    shared = pieces[2].name + ".safetensors"
    assert (paths[1] / shared).samefile(paths[2] / shared)
    newest = store.newest()
    assert newest is not None
    np.testing.assert_array_equal(newest.segment(pieces[4].name)["rows/0"], np.full((2, 3), 4))
    with pytest.raises(CheckpointError):
        newest.segment(pieces[0].name)


def test_a_segment_is_read_back_once(tmp_path: Path, pieces: list[Piece], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay may have many gigabytes."""
    read: list[str] = []
    check = store_module.check_file

    def watched(path: Path, entry: manifests.FileEntry) -> None:
        read.append(path.name)
        check(path, entry)

    monkeypatch.setattr(store_module, "check_file", watched)
    store = CheckpointStore(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        store.save(snapshot(step, *pieces[:2]), 1)
    assert sorted(name for name in read if name.startswith("replay")) == [f"{p.name}.safetensors" for p in pieces[:2]]


def test_a_process_that_goes_on_shares_what_it_found(tmp_path: Path, pieces: list[Piece]) -> None:
    CheckpointStore(tmp_path / "c").save(snapshot(1, *pieces[:3]), 1)
    later = CheckpointStore(tmp_path / "c")
    later.newest()
    again = [Piece(number) for number in range(5)]
    later.save(snapshot(2, *again), 2)
    assert [piece.reads for piece in again] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 8)])
def test_a_checkpoint_with_a_broken_segment_is_passed_over(tmp_path: Path, pieces: list[Piece], harm) -> None:
    store = CheckpointStore(tmp_path / "c")
    store.save(snapshot(1, pieces[0]), 1)
    path = store.save(snapshot(2, pieces[1]), 1)
    harm(path / (pieces[1].name + ".safetensors"))
    newest = CheckpointStore(tmp_path / "c").newest()
    assert newest is not None and newest.manifest.step == 1


def test_a_segment_that_is_broken_meanwhile_is_a_checkpoint_error(tmp_path: Path, pieces: list[Piece]) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1, pieces[0]), 1)
    found, name = store.newest(), pieces[0].name
    assert found is not None
    np.testing.assert_array_equal(found.segment(name)["rows/0"], pieces[0].arrays["rows/0"])
    file = path / f"{name}.safetensors"
    file.write_bytes(b"dust")
    with pytest.raises(CheckpointError, match=r"cannot be read: .* is not what was written"):
        found.segment(name)
    dust = found.manifest._replace(files={file.name: manifests.entry(b"dust")})
    for manifest in (dust, dust._replace(files={})):
        with pytest.raises(CheckpointError, match=f"{name}.safetensors cannot be read"):
            found._replace(manifest=manifest).segment(name)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read: .*No such file"):
        found.segment(name)


def test_a_copied_checkpoint_shares_names_with_another_and_is_verified_for_itself(
    tmp_path: Path, pieces: list[Piece]
) -> None:
    store = CheckpointStore(tmp_path / "c")
    for step in (1, 2):
        store.save(snapshot(step, pieces[0]), 1)
    shutil.copytree(tmp_path / "c", tmp_path / "copy")  # which makes two files of the one
    segment = tmp_path / "copy" / "000000000001" / f"{pieces[0].name}.safetensors"
    segment.write_bytes(bytes(segment.stat().st_size))
    newest, older = CheckpointStore(tmp_path / "copy").findings()
    assert newest.fault == ""
    assert f"{segment.name} is not what was written" in older.fault


def test_a_segment_that_was_verified_is_not_what_another_manifest_says_of_it(
    tmp_path: Path, pieces: list[Piece]
) -> None:
    store = CheckpointStore(tmp_path / "c")
    first, _ = (store.save(snapshot(step, pieces[0]), 1) for step in (1, 2))
    manifest = manifests.decode((first / manifests.NAME).read_bytes())
    name = f"{pieces[0].name}.safetensors"
    files = {**manifest.files, name: manifest.files["state.json"]}
    (first / manifests.NAME).write_bytes(manifests.encode(manifest._replace(files=files)))
    newest, older = CheckpointStore(tmp_path / "c").findings()
    assert (newest.fault, older.checkpoint) == ("", None)
    assert name in older.fault


def test_a_segment_whose_checkpoint_somebody_removed_is_written_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c")
    shutil.rmtree(store.save(snapshot(1, Piece(1)), 1))
    again = Piece(1)
    store.save(snapshot(2, again), 1)
    assert again.reads == 1
    newest = CheckpointStore(tmp_path / "c").newest()
    assert newest is not None and newest.segment(again.name).keys() == again.arrays.keys()


def test_segments_that_are_in_no_checkpoint_any_more_are_forgotten(tmp_path: Path) -> None:
    """A long run writes hundreds of thousands."""
    store = CheckpointStore(tmp_path / "c", keep=2)
    for step in range(1, 6):
        store.save(snapshot(step, Piece(step)), 1)
    assert len(store._segments) == 2


def test_a_save_that_is_cut_short_leaves_nothing_and_the_next_one_is_whole(tmp_path: Path, pieces: list[Piece]) -> None:
    store = CheckpointStore(tmp_path / "c")
    store.save(snapshot(1, pieces[0]), 1)
    with pytest.raises(CheckpointError, match="needed the memory"):
        store.save(snapshot(2, *pieces[:2], Piece(9, gone=True)), 1)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["000000000001"]
    store.save(snapshot(3, *pieces[:3]), 1)
    assert pieces[0].reads == 1


def test_whoever_lent_memory_is_told_whether_it_was_saved(tmp_path: Path, pieces: list[Piece]) -> None:
    """Superseded, failed and saved: once each."""
    tasks = []

    class Later:
        def submit(self, work) -> None:
            tasks.append(work)

    released: list[list[bool]] = [[], [], []]
    writer = CheckpointWriter(CheckpointStore(tmp_path / "c"), 1, Later(), Metrics())
    writer.submit(snapshot(1, pieces[0], released=released[0]))
    writer.submit(snapshot(2, Piece(9, gone=True), released=released[1]))
    tasks.pop()()
    writer.submit(snapshot(3, pieces[0], released=released[2]))
    tasks.pop()()
    assert released == [[False], [False], [True]]
