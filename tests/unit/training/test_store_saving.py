"""What is on the disk when a save is interrupted, or the disk fails."""

from __future__ import annotations

import errno
import shutil

import pytest

from aioseed.errors import CheckpointError, SaveFailed
from aioseed.training.files import Files
from aioseed.training.store import CheckpointStore

from .snapshots import assert_is, names, snapshot


def test_contents_reach_the_disk_before_names_do(tmp_path, faulty_files):
    files = faulty_files()
    CheckpointStore(tmp_path, files=files).save(snapshot(1), 1)
    assert files.names == ["sync", "make_directory", *["write", "sync"] * 3, "sync", "rename", "sync"]


def test_a_directory_whose_maker_died_before_its_name_was_on_the_disk_is_named_by_the_next(tmp_path):
    synced = []

    class Watched(Files):
        def sync_directory(self, path):
            synced.append(path)
            super().sync_directory(path)

    (tmp_path / "checkpoints").mkdir()
    store = CheckpointStore(tmp_path / "checkpoints", files=Watched())
    for step in (1, 2):
        store.save(snapshot(step), 1)
    assert synced.count(tmp_path) == 1 and synced[0] == tmp_path


def test_a_save_whose_sync_failed_is_never_trusted_even_if_it_cannot_be_removed(tmp_path):
    """Its contents read well, from memory; after a power cut they may be gone."""

    class Failing(Files):
        names_on_disk = True
        removes = True

        def sync_directory(self, path):
            if not self.names_on_disk and path == tmp_path:
                raise OSError(errno.EIO, "the disk says no")
            super().sync_directory(path)

        def rename(self, old, new):
            if not self.removes and old.name == "000000000003":
                raise OSError(errno.EIO, "the disk says no")
            super().rename(old, new)

    files = Failing()
    store = CheckpointStore(tmp_path, keep=2, files=files)
    for step in (1, 2):
        store.save(snapshot(step), 1)
    files.names_on_disk = files.removes = False
    with pytest.raises(CheckpointError, match="the disk says no"):
        store.save(snapshot(3), 1)
    files.names_on_disk = True
    store.save(snapshot(4), 1)
    assert names(tmp_path) == ["000000000002", "000000000003", "000000000004"]  # 3 is none of the two that are kept
    files.removes, store._keep = True, 3
    store.save(snapshot(5), 1)
    assert names(tmp_path) == ["000000000002", "000000000004", "000000000005"]


def test_a_directory_that_cannot_be_listed_afterwards_costs_no_save(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(snapshot(1), 1)

    def fails(store):
        raise OSError(errno.EIO, "the disk says no")

    with monkeypatch.context() as hidden:
        hidden.setattr(CheckpointStore, "_newest_first", fails)
        store.save(snapshot(2), 1)
    assert names(tmp_path) == ["000000000001", "000000000002"]
    assert_is(store.newest(), snapshot(2))


def test_the_step_of_a_save_that_failed_can_be_saved_again(tmp_path):
    class Failing(Files):
        names_on_disk = False

        def sync_directory(self, path):
            if not self.names_on_disk and path == tmp_path:
                raise OSError(errno.EIO, "the disk says no")
            super().sync_directory(path)

    files = Failing()
    store = CheckpointStore(tmp_path, files=files)
    with pytest.raises(CheckpointError, match="the disk says no"):
        store.save(snapshot(1), 1)
    assert names(tmp_path) == []
    files.names_on_disk = True
    store.save(snapshot(1), 1)
    assert_is(store.newest(), snapshot(1))


def test_what_a_failed_save_could_not_remove_keeps_no_later_one_from_its_step(tmp_path):
    class Failing(Files):
        works = True

        def write(self, path, data):
            if not self.works:
                raise OSError(errno.EROFS, "Read-only file system")
            super().write(path, data)

        def remove_tree(self, path):
            if not self.works:
                raise OSError(errno.EROFS, "Read-only file system")
            super().remove_tree(path)

    files = Failing()
    store = CheckpointStore(tmp_path, files=files)
    files.works = False
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"could not be saved: Read-only file system$"):
            store.save(snapshot(1), 1)
    files.works = True
    assert store.save(snapshot(1), 1).name == "000000000001.2"
    assert_is(store.newest(), snapshot(1))


def test_a_save_of_which_nobody_could_tell_whether_it_was_there_is_made_good_by_the_next(tmp_path, monkeypatch):
    class Failing(Files):
        works = False

        def write(self, path, data):
            if not self.works:
                self.hidden.setattr("pathlib.Path.exists", fails)
                raise OSError(errno.EIO, "the disk says no")
            super().write(path, data)

    def fails(path, **options):
        raise OSError(errno.EIO, "the disk says no", str(path))

    files = Failing()
    store = CheckpointStore(tmp_path, files=files)
    with monkeypatch.context() as files.hidden, pytest.raises(CheckpointError, match=r"the disk says no$"):
        store.save(snapshot(1), 1)
    files.works = True
    for step in (1, 2):
        store.save(snapshot(step), 1)
    assert names(tmp_path) == ["000000000001", "000000000002"]


def test_a_leftover_that_cannot_be_removed_is_named_and_the_others_go(tmp_path, caplog):
    class Stuck(Files):
        def remove_tree(self, path):
            if path.name == "a.tmp":
                raise PermissionError(errno.EACCES, "not yours")
            super().remove_tree(path)

    for name in ("a.tmp", "b.tmp"):
        (tmp_path / name).mkdir()
    CheckpointStore(tmp_path, files=Stuck()).sweep()
    assert names(tmp_path) == ["a.tmp"] and "a.tmp could not be removed" in caplog.text


def test_a_kill_at_any_operation_leaves_the_one_before_or_the_new_one(tmp_path, faulty_files, killed):
    before = tmp_path / "before"
    store = CheckpointStore(before, keep=2)
    for step in (1, 2):
        store.save(snapshot(step), 1)
    counting = faulty_files()
    shutil.copytree(before, tmp_path / "count")
    CheckpointStore(tmp_path / "count", keep=2, files=counting).save(snapshot(3), 1)
    assert counting.calls >= 10

    outcomes = []
    for call in range(1, counting.calls + 1):
        directory = tmp_path / f"killed at {call}"
        shutil.copytree(before, directory)
        with pytest.raises(killed):
            CheckpointStore(directory, keep=2, files=faulty_files(call)).save(snapshot(3), 1)
        after = CheckpointStore(directory, keep=2)
        for path in directory.glob("*[0-9]"):
            after._verify(path)
        outcomes.append(after.newest().manifest.step)
        assert_is(after.newest(), snapshot(outcomes[-1]))
        after.sweep()
        after.save(snapshot(4), 2)
        assert_is(after.newest(), snapshot(4))
        assert not list(directory.glob("*.tmp"))
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {2, 3}


def test_a_kill_in_the_very_first_save_leaves_no_checkpoint_and_no_error(tmp_path, faulty_files, killed):
    for call in (1, 2, 3, 4, 6):
        directory = tmp_path / str(call) / "checkpoints"
        directory.parent.mkdir()
        with pytest.raises(killed):
            CheckpointStore(directory, files=faulty_files(call)).save(snapshot(1), 1)
        assert CheckpointStore(directory).newest() is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_is_reported_and_leaves_nothing_behind(tmp_path, faulty_files, code):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1), 1)
    counting = faulty_files()
    CheckpointStore(tmp_path, files=counting).save(snapshot(2), 1)
    shutil.rmtree(tmp_path / "000000000002")
    for call in range(1, counting.calls + 1):
        files = faulty_files(call, OSError(code, "the disk says no"))
        with pytest.raises(SaveFailed, match=r"could not be saved: the disk says no$") as caught:
            CheckpointStore(tmp_path, files=files).save(snapshot(2), 1)
        assert isinstance(caught.value.__cause__, OSError)
        assert names(tmp_path) == ["000000000001"]
        assert_is(store.newest(), snapshot(1))


def test_a_disk_that_does_not_answer_at_all_is_reported_in_the_systems_words(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)

    def fails(path, **options):
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.exists", fails)
        with pytest.raises(CheckpointError, match=r"^checkpoint 000000000001 could not be saved: Input/output error$"):
            store.save(snapshot(1), 1)
    store.save(snapshot(1), 1)
    assert names(tmp_path) == ["000000000001"]


def test_a_disk_that_changes_what_it_is_given_is_noticed_at_once(tmp_path):
    class Forgetful(Files):
        def write(self, path, data):
            super().write(path, data.replace(b"accepted", b"ACCEPTED"))

    with pytest.raises(CheckpointError, match=r"state\.json is not what was written"):
        CheckpointStore(tmp_path, files=Forgetful()).save(snapshot(1), 1)
    assert names(tmp_path) == []


def test_a_failure_to_remove_old_ones_does_not_fail_the_save(tmp_path, caplog):
    caplog.set_level("INFO", logger="aioseed")

    class Stuck(Files):
        def remove_tree(self, path):
            raise PermissionError("no")

    CheckpointStore(tmp_path, keep=1).save(snapshot(1), 1)
    CheckpointStore(tmp_path, keep=1, files=Stuck()).save(snapshot(2), 1)
    assert_is(CheckpointStore(tmp_path).newest(), snapshot(2))
    assert "no" in caplog.text
    CheckpointStore(tmp_path).sweep()
    assert names(tmp_path) == ["000000000002"]
